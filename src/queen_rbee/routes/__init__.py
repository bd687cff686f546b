"""The queen's HTTP routes: parse, call, answer."""
