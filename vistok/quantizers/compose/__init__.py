"""Quantizers of quantizers: branches, scales, residual levels."""
