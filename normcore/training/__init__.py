"""Training: losses, optimizers, schedules, the loop and its checkpoints."""
