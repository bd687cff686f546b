"""Decisions about models: what a file is, which one is meant, how a transfer goes on."""
