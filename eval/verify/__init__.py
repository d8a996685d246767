"""Published figures of released models, measured again: `vistok eval verify NAME`."""
