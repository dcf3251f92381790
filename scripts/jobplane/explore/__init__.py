"""Explores orders of the functions' calls, with faults, for broken guarantees."""
