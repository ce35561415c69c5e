"""One module per family of `safescale` commands; imported when called."""
