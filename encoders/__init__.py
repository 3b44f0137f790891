"""What turns text, triples and sequences into vectors. Knows nothing of the other rooms."""
