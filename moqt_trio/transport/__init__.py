"""Byte pipes with streams and datagrams: in memory, over QUIC, over WebTransport. They know nothing of MoQ."""
