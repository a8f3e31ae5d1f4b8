"""Evaluation: metrics as pure functions on arrays, and the evaluator that ranks for them."""
