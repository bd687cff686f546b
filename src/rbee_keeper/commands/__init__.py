"""One module per command: parse, call, translate errors; nothing else."""
