"""Protocols: each takes a bench and yields rows of results.json."""
