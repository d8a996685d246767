"""Measured numbers: rows, the table of metrics, merging and comparing. Imports no torch."""
