"""Protocols: what is measured of a system. One file each; `base.py` has their contract."""
