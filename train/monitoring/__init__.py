"""Reports of a run: logs, images, the collapse alarm and the summary."""
