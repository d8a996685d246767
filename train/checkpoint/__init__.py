"""Checkpoints: files, and what a run restores from them."""
