"""A small vision transformer, trained on small data, so that operators get an accuracy beside their cost."""
