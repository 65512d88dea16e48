"""HTTP over TCP on the number of the UDP port, for the same ASGI application as HTTP/3."""
