"""Where arithmetic runs: processes, precision, evaluation mode."""
