"""Evaluation: `vistok eval RUN...`, or `torchrun -m vistok.eval ...`."""
