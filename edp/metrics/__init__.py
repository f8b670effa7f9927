"""Scores of predictions: accuracy, calibration, diversity, out-of-distribution.

Scores of labelled predictions and of rankings are Python floats, computed on the
host in float64. Diversity functions return one value per example and run on NumPy
arrays and, inside `jit`, on JAX arrays; the caller reduces. Statistics summarise a
few scores, for example of several seeds, and paired differences.
"""

from edp.metrics.calibration import (
    ReliabilityBins,
    Temperature,
    apply_temperature,
    ece,
    fit_temperature,
    reliability_bins,
)
from edp.metrics.diversity import (
    disagreement_rate,
    mutual_information,
    pairwise_kl,
    predictive_entropy,
    variance,
)
from edp.metrics.ood import aupr, aurc, auroc, fpr_at_95_tpr, risk_coverage
from edp.metrics.pooling import (
    POOLS,
    FittedPool,
    arithmetic_mean,
    best_pool,
    fit_pool,
    geometric_mean,
)
from edp.metrics.scores import (
    EPSILON,
    accuracy,
    brier,
    deep_ensemble_equivalent,
    example_nll,
    nll,
)
from edp.metrics.soft_labels import soft_label_scores
from edp.metrics.statistics import (
    Mean,
    bootstrap_intervals,
    mean_and_error,
    paired_p_value,
)

__all__ = [
    "EPSILON",
    "POOLS",
    "FittedPool",
    "Mean",
    "ReliabilityBins",
    "Temperature",
    "accuracy",
    "apply_temperature",
    "arithmetic_mean",
    "aupr",
    "aurc",
    "auroc",
    "best_pool",
    "bootstrap_intervals",
    "brier",
    "deep_ensemble_equivalent",
    "disagreement_rate",
    "ece",
    "example_nll",
    "fit_pool",
    "fit_temperature",
    "fpr_at_95_tpr",
    "geometric_mean",
    "mean_and_error",
    "mutual_information",
    "nll",
    "paired_p_value",
    "pairwise_kl",
    "predictive_entropy",
    "reliability_bins",
    "risk_coverage",
    "soft_label_scores",
    "variance",
]
