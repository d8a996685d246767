"""The playground: a page on this machine that encodes, decodes and edits images with tokenizers.

`page` and `serve` need gradio (the extra `demo`); all that computes is in the other files, which do
not.
"""
