"""Distillers of a user's own package: each needs something that the built-in ones do not."""
