"""WebTransport over HTTP/3, both roles, and ordinary HTTP/3 requests beside it."""
