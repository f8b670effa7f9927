"""Scores of predictions: accuracy, calibration, diversity, OOD, prediction sets.

Scores of labelled predictions and of rankings are Python floats, computed on the
host in float64. Diversity functions return one value per example and run on NumPy
arrays and, inside `jit`, on JAX arrays; the caller reduces. Statistics summarise a
few scores, for example of several seeds, and paired differences.
"""

from edp.metrics.calibration import (
    ReliabilityBins,
    Temperature,
    adaptive_ece,
    apply_temperature,
    classwise_ece,
    ece,
    fit_temperature,
    reliability_bins,
)
from edp.metrics.conformal import (
    SetScores,
    aps_scores,
    conformal_threshold,
    coverage_bounds,
    label_scores,
    prediction_sets,
    raps_scores,
    set_scores,
    smallest_calibration_size,
    thr_scores,
)
from edp.metrics.diversity import (
    attribution_diversity,
    disagreement_rate,
    mutual_information,
    pairwise_kl,
    predictive_entropy,
    variance,
)
from edp.metrics.groups import (
    Churn,
    GroupScores,
    churn,
    group_scores,
)
from edp.metrics.joint import (
    dyadic_batches,
    joint_nll,
)
from edp.metrics.ood import (
    aupr,
    auroc,
    fpr_at_95_tpr,
)
from edp.metrics.pooling import (
    POOLS,
    FittedPool,
    arithmetic_mean,
    best_pool,
    fit_pool,
    geometric_mean,
    member_temperatures,
)
from edp.metrics.scores import (
    EPSILON,
    accuracy,
    brier,
    deep_ensemble_equivalent,
    example_nll,
    nll,
)
from edp.metrics.selection import (
    choose_by_mutual_errors,
    choose_by_nll,
    mutual_errors,
    nlls_in_order,
)
from edp.metrics.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    least_ambiguous,
    risk_at_coverage,
    risk_coverage,
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
    "Churn",
    "FittedPool",
    "GroupScores",
    "Mean",
    "ReliabilityBins",
    "SetScores",
    "Temperature",
    "accuracy",
    "adaptive_ece",
    "apply_temperature",
    "aps_scores",
    "arithmetic_mean",
    "attribution_diversity",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "best_pool",
    "bootstrap_intervals",
    "brier",
    "choose_by_mutual_errors",
    "choose_by_nll",
    "churn",
    "classwise_ece",
    "conformal_threshold",
    "coverage_at_risk",
    "coverage_bounds",
    "deep_ensemble_equivalent",
    "disagreement_rate",
    "dyadic_batches",
    "ece",
    "example_nll",
    "fit_pool",
    "fit_temperature",
    "fpr_at_95_tpr",
    "geometric_mean",
    "group_scores",
    "joint_nll",
    "label_scores",
    "least_ambiguous",
    "mean_and_error",
    "member_temperatures",
    "mutual_errors",
    "mutual_information",
    "nll",
    "nlls_in_order",
    "paired_p_value",
    "pairwise_kl",
    "prediction_sets",
    "predictive_entropy",
    "raps_scores",
    "reliability_bins",
    "risk_at_coverage",
    "risk_coverage",
    "set_scores",
    "smallest_calibration_size",
    "soft_label_scores",
    "thr_scores",
    "variance",
]
