"""One running session: joins the protocol, a connection and the published broadcasts in one nursery."""
