"""A Python interpreter that keeps its names."""
