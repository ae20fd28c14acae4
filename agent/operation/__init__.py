"""What every operation on a live target needs: journal, locks, hooks, a freeze that ends."""
