"""Raw QUIC: UDP sockets, one task per connection, and an engine behind a seam."""
