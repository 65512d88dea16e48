"""The half of a session that answers what the peer asks."""
