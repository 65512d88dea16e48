"""Mutated bytes for every reader of a peer's bytes: `python -m fuzz`."""
