"""Benchmarks for the people who carry the project on: `python -m benchmarks NAME`."""
