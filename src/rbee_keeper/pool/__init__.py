"""The keeper's `pool` commands: what is on the nodes, asked of their hives through the queen."""
