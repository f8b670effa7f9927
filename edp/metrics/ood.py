"""OOD detection: how well a score separates two sets of examples.

In-distribution examples are the positive class and a higher score
means "more in-distribution" (pass minus an uncertainty).
"""

import numpy as np
from numpy.typing import ArrayLike

from edp.metrics.validation import as_scores


def auroc(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Returns the area under the ROC curve of in- against out-of-distribution.

    The probability that an in-distribution example scores above an
    out-of-distribution one, ties counted half.

    Args:
      scores_in: scores of in-distribution examples [N_in].
      scores_out: scores of out-of-distribution examples [N_out].

    Raises:
      InputError: scores that are empty, not one-dimensional or not finite. All
        functions of this module raise it.
    """
    # Imported here, so that importing edp.metrics is fast.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(scores_in, scores_out)))


def aupr(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Returns the area under the precision-recall curve, as average precision.

    The sum over thresholds of precision times the gain in recall, not
    interpolated (scikit-learn's definition); in-distribution is positive.

    Args:
      scores_in: scores of in-distribution examples [N_in].
      scores_out: scores of out-of-distribution examples [N_out].
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(scores_in, scores_out)))


def fpr_at_95_tpr(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Returns the false-positive rate at a true-positive rate of 95 %.

    The threshold is the highest at which at least 95 % of the in-distribution scores
    are at or above it; the value is the fraction of out-of-distribution scores at or
    above it.

    Args:
      scores_in: scores of in-distribution examples [N_in].
      scores_out: scores of out-of-distribution examples [N_out].
    """
    scores_in = as_scores("scores_in", scores_in)
    scores_out = as_scores("scores_out", scores_out)
    num_accepted = -(-95 * len(scores_in) // 100)  # Rounded up, in integers.
    threshold = np.sort(scores_in)[-num_accepted]
    return float(np.mean(scores_out >= threshold))


def _labelled(
    scores_in: ArrayLike, scores_out: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's (y_true, y_score), in-distribution positive."""
    scores_in = as_scores("scores_in", scores_in)
    scores_out = as_scores("scores_out", scores_out)
    positive = np.repeat([1, 0], [len(scores_in), len(scores_out)])
    return positive, np.concatenate([scores_in, scores_out])
