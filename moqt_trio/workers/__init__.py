"""Several processes that serve one port: what starts and restarts them, and what links their relays."""
