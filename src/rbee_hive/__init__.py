"""The daemon `rbee-hive`: one per node. Reports what the node has and carries out the orders of the queen."""
