"""``make bench-scale``: a thousand nodes, ten thousand actions, and a million that were before."""
