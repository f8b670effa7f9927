"""Configurations; `default.py` says what every setting means."""
