"""`vistok eval speed`: samples/s, FLOP/s and memory of runs, configs, loaders and lookups."""
