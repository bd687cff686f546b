"""Everything about a node before its hive answers: who it is, what is on it, how it is reached."""
