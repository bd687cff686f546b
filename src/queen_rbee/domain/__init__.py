"""The queen's decisions: pure functions of frozen facts. No I/O, no clock, no randomness."""
