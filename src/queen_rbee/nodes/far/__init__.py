"""Programs that run on a node before rbee is there: they travel as text and know nothing but that machine's Python."""
