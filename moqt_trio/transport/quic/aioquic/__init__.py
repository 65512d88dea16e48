"""The default QUIC engine, on aioquic. Private names of aioquic are used in this package alone."""
