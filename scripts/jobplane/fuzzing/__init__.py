"""Hostile input for every function, in this process: `jobplane fuzz` and tests/hostile."""
