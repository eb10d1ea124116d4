"""Several runs joined into one: which record of a cell counts, what is planned, and where the runs are read."""
