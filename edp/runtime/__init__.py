"""Runs jitted training steps on any mesh, with checkpoints; knows no ensembles."""
