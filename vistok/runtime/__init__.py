"""Processes, precision and evaluation mode: how arithmetic runs, whatever is computed."""
