"""The power check: what this many sealed rows can certify, before any training."""
