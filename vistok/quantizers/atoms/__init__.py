"""Quantizers of single latents: one codebook each."""
