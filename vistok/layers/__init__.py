"""Layers shared by every network of the house; one idea a file."""
