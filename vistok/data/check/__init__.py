"""`vistok check`: read and decode a whole data set once, before a training runs into its faults."""
