"""Optimizers, gradients and averages of weights."""
