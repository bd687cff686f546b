"""What the four programs share: the wire contracts and the plumbing, no policy. Importing this loads nothing else."""
