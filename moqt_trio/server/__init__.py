"""Listening: one port for raw QUIC, WebTransport and HTTP."""
