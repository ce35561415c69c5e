"""Judging: exact bounds, findings, the power check, the gate, the verdict."""
