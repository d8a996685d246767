"""What a run costs: its plan, FLOP, memory and throughput."""
