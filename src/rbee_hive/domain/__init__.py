"""Decisions: synchronous functions of frozen facts. No input or output, no clock, no random number."""
