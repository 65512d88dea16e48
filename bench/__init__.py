"""Benchmarks: the library against a bare aioquic driver on Trio, in one run on one machine."""
