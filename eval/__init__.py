"""Evaluation, launched after training: `python -m eval RUN... report=report.html`."""
