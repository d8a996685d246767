"""Costs of a run: its plan, FLOP, memory and throughput."""
