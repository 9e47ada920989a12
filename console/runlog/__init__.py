"""The run log: what happened in every run, kept in one SQLite file that run folders can rebuild."""
