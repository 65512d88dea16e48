"""The half of a session that serves the peer's requests."""
