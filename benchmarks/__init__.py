"""Side-by-side measurements against peers: `python -m benchmarks.NAME` from a checkout."""
