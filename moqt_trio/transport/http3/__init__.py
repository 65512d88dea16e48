"""HTTP/3 on a QUIC connection, as far as WebTransport and ordinary requests need it."""
