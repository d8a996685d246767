"""What a run tells: logs, images, the collapse alarm and the summary."""
