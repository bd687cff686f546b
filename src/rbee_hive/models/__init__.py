"""Models of this node: known, fetched, looked after."""
