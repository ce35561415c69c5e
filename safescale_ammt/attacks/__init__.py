"""Attacks on any frozen torch module of classes, and the battery that joins them."""
