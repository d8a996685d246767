"""Layers that networks share; one idea a file."""
