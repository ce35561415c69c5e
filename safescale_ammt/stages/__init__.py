"""One `run()` per container: open artifacts, call the library, write artifacts."""
