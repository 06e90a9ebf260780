"""TextWorldExpress: short text games."""
