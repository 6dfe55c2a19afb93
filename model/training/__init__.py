"""Training: losses, the one loop, checkpoints."""
