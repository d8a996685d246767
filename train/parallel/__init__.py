"""Modules on one process or several: whole, replicated or sharded."""
