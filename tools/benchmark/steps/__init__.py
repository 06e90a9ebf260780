"""One training step of the same model by two frameworks, each in a process of its own, for `tools.benchmark train`."""
