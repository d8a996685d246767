"""Flow matching without networks: the path from data to noise, solvers along it, guidance."""
