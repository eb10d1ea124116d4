"""Records as text and pictures, one format a file. Never imports torch."""
