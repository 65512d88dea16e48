"""One running session: joins the protocol, a connection and what is published, in one nursery."""
