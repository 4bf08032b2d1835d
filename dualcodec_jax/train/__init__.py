"""Training: objective, optimisers, state, step, loop."""
