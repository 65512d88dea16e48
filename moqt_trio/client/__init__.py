"""Connecting to a server, and staying connected."""
