"""Training: `vistok train CONFIG [KEY=VALUE ...]`, or `accelerate launch -m vistok.train ...`."""
