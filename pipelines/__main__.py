"""`python -m pipelines` is `safescale`."""

from pipelines.cli import main

main()
