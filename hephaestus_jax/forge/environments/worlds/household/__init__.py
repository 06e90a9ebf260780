"""A household in the manner of ALFWorld."""
