"""Ensemble distillation with perturbations.

Distil a deep ensemble on inputs moved to where its members disagree (Nam et
al., *Diversity Matters When Learning From Ensembles*, NeurIPS 2021). Import the
part you need: `from edp import perturbations, losses, metrics`.
"""

__version__ = "0.1.0"
