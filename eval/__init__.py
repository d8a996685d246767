"""Evaluation, launched after training: `vistok eval RUN... report=report.html`."""
