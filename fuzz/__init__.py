"""Hostile bytes for everything that reads a peer's: `python -m fuzz`."""
