"""A callable in, a figure out. Nothing here knows an operator by name."""
