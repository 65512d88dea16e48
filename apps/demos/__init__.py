"""Demonstrations of the echo service: programs that run its server and its client as processes."""
