"""Raw QUIC: UDP sockets, one task per connection, and the interface of an engine."""
