"""`vistok eval speed`: images/s, FLOP/s and memory of runs, configs, loaders and lookups."""
