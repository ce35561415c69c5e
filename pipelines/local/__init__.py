"""Running the compiled pipeline on this machine."""
