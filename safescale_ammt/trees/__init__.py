"""Boosted trees as agents and as twin, under the same constraints as nets."""
