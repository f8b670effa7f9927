"""Ensemble distillation with perturbations.

Distils a deep ensemble on inputs perturbed to where its members disagree (Nam et
al., *Diversity Matters When Learning From Ensembles*, NeurIPS 2021). Import the
part you need: `from edp import perturbations, losses, metrics`.
"""

__version__ = "0.1.0"
