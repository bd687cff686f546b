"""The daemon `queen-rbee`: admission, scheduling, routing and every decision; the only one that speaks SSH."""
