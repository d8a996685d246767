"""Bottlenecks without codes."""
