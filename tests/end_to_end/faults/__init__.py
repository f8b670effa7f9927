"""Fault injection into real runs; see `__main__`."""
