"""One module per command: parse, call, translate errors; nothing else.

Each imports what it does inside the function that does it: `--help` and the other commands start without it.
"""
