"""The half of a session that asks the peer."""
