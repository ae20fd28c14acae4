"""What only a GPU can show: `make test-gpu`. Needs one, PyTorch, root, and no network."""
