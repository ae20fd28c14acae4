"""What runs on every node: everything else, put together, started and stopped in order."""
