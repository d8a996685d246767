"""The kinds of data sets, a module each, and the readers of the files that they lie in."""
