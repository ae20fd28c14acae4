"""One module per measure; each takes a Lab and returns an Outcome."""
