"""Text and faces in reconstructions, as TokBench measures them (arXiv 2505.18142)."""
