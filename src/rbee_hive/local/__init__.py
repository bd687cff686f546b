"""What the commands stand on: a hive that runs, or this node's files where none does."""
