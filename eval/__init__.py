"""What you launch after training: `python -m eval RUN... --report report.html`."""
