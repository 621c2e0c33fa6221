"""Benchmarks of runc_async beside others: `python -m bench --help`."""
