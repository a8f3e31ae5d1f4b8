"""Training: one objective, one loop, checkpoints."""
