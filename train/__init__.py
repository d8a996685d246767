"""Training: `python -m train CONFIG [key=value ...]`, or `accelerate launch -m train ...`."""
