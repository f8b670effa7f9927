"""Loaders: one module for each form in which a dataset comes."""
