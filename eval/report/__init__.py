"""The report of an evaluation, made from results.json alone. Imports no torch."""
