"""Benchmarks: ``python -m benchmarks --help``.  This package imports nothing by itself."""
