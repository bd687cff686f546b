"""The keeper's `node` commands."""
