"""A database of its own, in SQLite."""
