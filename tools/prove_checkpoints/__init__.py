"""Kills the real training command at random moments and compares what comes out with an undisturbed run."""
