"""Files: atomic writes, safetensors, foreign state dicts, saved models, import records."""
