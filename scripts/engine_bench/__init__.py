"""The parts of `scripts/bench engine`: models, parties that answer, the client that asks, and what comes of it."""
