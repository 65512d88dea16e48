"""Benchmarks: the library against aioquic alone on Trio, in one run on one machine."""
