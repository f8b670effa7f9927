"""Turns a configuration into trained networks."""
