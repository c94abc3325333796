"""Training: configuration in, checkpoints out."""
