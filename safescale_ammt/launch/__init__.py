"""One training task in one process or in several: request, worker, torchrun."""
