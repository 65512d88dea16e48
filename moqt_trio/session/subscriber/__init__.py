"""The half of a session that makes requests of the peer."""
