"""`vistok eval study`: train tokenizers that differ in a few keys, evaluate them together."""
