"""Exact and score bounds for one rate, two rates and two models on the same rows."""
