"""Benchmarks that anyone can run; each prints one JSON line. See `python -m tools.benchmark --help`."""
