"""Bytes of files to pixels: images, frames of videos, and how they are cropped and resized."""
