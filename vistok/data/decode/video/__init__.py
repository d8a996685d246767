"""Clips of video files: where their frames are, and the frames themselves."""
