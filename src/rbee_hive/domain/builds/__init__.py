"""Decisions about worker builds."""
