"""A shell in a folder of its own."""
