"""Families of released generators, one per file."""
