"""The search: genomes, ask/tell evolution, rungs, feasibility."""
