"""The one place that says which version of rbee this is; the wheel's metadata is read from here."""

__version__ = "0.1.0"
