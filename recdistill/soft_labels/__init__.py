"""Soft labels: what a teacher knows, extracted once and kept on disk."""
