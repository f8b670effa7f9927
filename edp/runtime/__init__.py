"""Runs a jitted step on any mesh, saves it and resumes it; knows no ensembles."""
