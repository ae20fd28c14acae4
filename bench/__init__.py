"""Programs to checkpoint, a demo and a benchmark: all that drives the agent from outside."""
