"""The graphs and the command line: how the five stages become one run."""
