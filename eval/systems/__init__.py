"""The systems that are evaluated: runs, saved models, released tokenizers, and AR probes."""
