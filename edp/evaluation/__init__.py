"""Computes what trained networks predict, and how good it is."""
