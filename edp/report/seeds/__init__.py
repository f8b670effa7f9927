"""Summaries over seeds and settings, from the files of several runs."""
