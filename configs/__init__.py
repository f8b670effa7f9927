"""Shipped configurations; `default.py` documents every setting."""
