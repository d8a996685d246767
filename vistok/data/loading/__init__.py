"""Samples to batches: loaders, streams, worker processes, and samples that cannot be used."""
