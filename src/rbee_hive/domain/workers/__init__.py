"""Decisions about worker processes."""
