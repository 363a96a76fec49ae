"""Measuring: pairs of runs that take turns, so that a busy machine slows both sides alike."""
