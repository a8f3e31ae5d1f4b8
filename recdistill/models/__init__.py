"""Recommenders: one shelf for teachers and students."""
