"""One module for each group of local commands: parse, ask the node, print; nothing else."""
