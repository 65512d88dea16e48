"""A relay: what the peers of many sessions announce, announced to each other and served out of one copy."""
