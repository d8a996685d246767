"""The real side of a comparison: statistics of real images and what must agree with them."""
