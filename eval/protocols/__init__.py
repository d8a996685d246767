"""Protocols: each takes a context and yields rows of results.json."""
