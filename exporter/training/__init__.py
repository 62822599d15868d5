"""Training of checkpoints: rows, batches, and what is read of a store."""
