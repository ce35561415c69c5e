"""Two nets of one's own: a residual one, and attention over the columns."""
