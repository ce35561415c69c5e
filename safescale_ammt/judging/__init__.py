"""From evidence to a verdict: rates, bounds, findings, the gate."""
