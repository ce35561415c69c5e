"""What a cluster lacks for a run, each fault by its own name."""
