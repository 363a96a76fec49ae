"""Execution backends: what is there, which to use, and a session on it."""
