"""Faults that real runs are given: killed, starved, damaged. See `__main__`."""
