"""Runs the cells of a sweep, each in an isolated worker process."""
