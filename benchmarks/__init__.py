"""Claims about our own cost, each measured beside a named peer in the same run. `python -m benchmarks` lists them."""
