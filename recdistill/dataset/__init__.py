"""Data: named sources, readers, splits, popularity groups, negative sampling."""
