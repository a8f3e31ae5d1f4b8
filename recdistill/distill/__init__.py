"""Distillers: one method, one file, one class."""
