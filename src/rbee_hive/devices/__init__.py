"""What this node can compute on, as far as this process may use it."""
