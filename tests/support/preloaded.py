"""Imported once by the process that the processes of tests are forked from."""
