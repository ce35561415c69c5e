"""Many agents under constraints: the one training loop and its parts."""
