"""The architecture search: ask/tell evolution, rungs, feasibility."""
