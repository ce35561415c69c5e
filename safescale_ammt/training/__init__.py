"""Learning: networks, agents, constraints, sharing, the one training loop."""
