"""The same predictions through other libraries: where definitions agree, and where not.

The table in docs/metrics.md says what this file checks. A library that is not installed
skips its tests; those with float32 inside agree to its rounding only.
"""

import logging

import numpy as np
import pytest
import sklearn.metrics

from edp import metrics
from edp.metrics import uncertainty

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

EXACT, FLOAT32 = 1e-9, 3e-7
SIZE, CLASSES = 2000, 5


@pytest.fixture(scope="module")
def predictions():
    """Returns logits, overconfident probabilities [N, K] and labels [N]."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.normal(size=(SIZE, CLASSES))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    uniform = rng.random((SIZE, 1))
    labels = np.minimum((truth.cumsum(1) < uniform).sum(1), CLASSES - 1)
    probs = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    return 2 * logits, probs, labels


@pytest.fixture(scope="module")
def scores():
    """Returns scores in [0, 1] of in-distribution and other examples."""
    rng = np.random.default_rng(1)
    return rng.beta(5, 2, size=500), rng.beta(3, 3, size=300)


def selective(probs, labels):
    return probs.max(1), probs.argmax(1) == labels


def agree(ours, theirs, tolerance=EXACT):
    assert float(theirs) == pytest.approx(ours, rel=0, abs=tolerance)


def differ(ours, theirs):
    assert abs(float(theirs) - ours) > 1e-5


def test_scikit_learn(predictions, scores):
    _, probs, labels = predictions
    agree(metrics.nll(probs, labels), sklearn.metrics.log_loss(labels, probs))
    agree(metrics.brier(probs, labels), sklearn.metrics.brier_score_loss(labels, probs))
    # Of two classes, it is the error of one probability: half the sum over classes.
    two = np.stack([probs[:, 0], 1 - probs[:, 0]], axis=1)
    half = sklearn.metrics.brier_score_loss(labels == 0, probs[:, 0])
    agree(metrics.brier(two, (labels != 0).astype(int)), 2 * half)
    truth = np.repeat([1, 0], [500, 300])
    ranking = np.concatenate(scores)
    agree(metrics.auroc(*scores), sklearn.metrics.roc_auc_score(truth, ranking))
    precise = sklearn.metrics.average_precision_score(truth, ranking)
    agree(metrics.aupr(*scores), precise)
    # The trapezoid under the same curve is another number.
    precision, recall, _ = sklearn.metrics.precision_recall_curve(truth, ranking)
    differ(metrics.aupr(*scores), sklearn.metrics.auc(recall, precision))


def test_torchmetrics(predictions, scores):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torchmetrics.functional.classification")
    _, probs, labels = predictions
    p, y = torch.tensor(probs), torch.tensor(labels)
    ours = metrics.accuracy(probs, labels)
    micro = peer.multiclass_accuracy(p, y, CLASSES, average="micro")
    agree(ours, micro, FLOAT32)
    # By default the mean over classes.
    groups = metrics.group_scores(probs, labels)
    agree(groups.accuracy.mean(), peer.multiclass_accuracy(p, y, CLASSES), FLOAT32)
    ece = peer.multiclass_calibration_error(p, y, CLASSES, n_bins=15)
    agree(metrics.ece(probs, labels), ece, FLOAT32)
    # Bins [lo, hi): examples on an edge fall above it, and a confidence of 1 is a bin
    # of its own. Ours are (lo, hi], as in Guo et al. (2017).
    certain = np.array([[1.0, 0.0, 0.0]] * 2 + [[0.95, 0.05, 0.0]] * 2)
    classes = np.array([1, 0, 0, 0])
    found = peer.multiclass_calibration_error(
        torch.tensor(certain), torch.tensor(classes), 3, n_bins=10
    )
    agree((2 * 0.5 + 2 * 0.05) / 4, found, FLOAT32)
    agree(abs(0.75 - 0.975), metrics.ece(certain, classes, 10))

    inside, outside = scores
    ranking = torch.tensor(np.concatenate(scores))
    truth = torch.tensor(np.repeat([1, 0], [500, 300]))
    agree(metrics.auroc(*scores), peer.binary_auroc(ranking, truth), FLOAT32)
    precise = peer.binary_average_precision(ranking, truth)
    agree(metrics.aupr(*scores), precise, FLOAT32)
    # Outside [0, 1] it applies a sigmoid first, which makes ties of large scores.
    large = peer.binary_auroc((20 + 20 * ranking).float(), truth)
    agree(metrics.auroc(20 + 20 * inside, 20 + 20 * outside), metrics.auroc(*scores))
    assert float(large) == 0.5


def test_torch_uncertainty(predictions, scores):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_uncertainty.metrics")
    logits, probs, labels = predictions

    def measure(metric, *arguments):
        metric.set_dtype(torch.float64)
        metric.update(*map(torch.tensor, arguments))
        return metric.compute()

    def score(metric, of=probs, classes=labels):
        return measure(metric, of, classes)

    agree(metrics.nll(probs, labels), score(peer.CategoricalNLL()))
    brier = metrics.brier(probs, labels)
    agree(brier, score(peer.BrierScore(num_classes=CLASSES)))
    total = score(peer.BrierScore(num_classes=CLASSES, reduction="sum"))
    agree(brier, total / SIZE)
    settings = {"task": "multiclass", "num_classes": CLASSES, "num_bins": 15}
    ece = score(peer.CalibrationError(**settings))
    agree(metrics.ece(probs, labels), ece, FLOAT32)
    adaptive = score(peer.AdaptiveCalibrationError(**settings))
    agree(metrics.adaptive_ece(probs, labels), adaptive, FLOAT32)
    classwise = score(peer.ClasswiseCalibrationError(num_classes=CLASSES))
    agree(metrics.classwise_ece(probs, labels), classwise)

    # Trapezoids between 1/N and 1, divided by 1 - 1/N; ours is the mean of N risks.
    confidence, correct = selective(probs, labels)
    coverage, risk = metrics.risk_coverage(confidence, correct)
    for found, values, ours in (
        (score(peer.AURC()), risk, metrics.aurc),
        (score(peer.AUGRC()), coverage * risk, metrics.augrc),
    ):
        width = 1 - 1 / SIZE
        agree(np.trapezoid(values, coverage) / width, found, FLOAT32)
        differ(ours(confidence, correct), found)
    found = score(peer.RiskAt80Cov())
    agree(metrics.risk_at_coverage(confidence, correct), found, FLOAT32)
    found = score(peer.CovAt5Risk())
    agree(metrics.coverage_at_risk(confidence, correct), found, FLOAT32)
    # Of equal confidences the order of the data decides; ours is the mean over orders.
    tied, classes = np.tile([0.6, 0.4], (4, 1)), np.array([0, 0, 1, 1])
    values = [
        float(score(peer.AURC(), tied, order))
        for order in (classes, classes[::-1].copy())
    ]
    assert abs(values[0] - values[1]) > 0.5
    agree(metrics.aurc(*selective(tied, classes)), np.mean(values), FLOAT32)

    # FPR95: its `pos_label` is the positive class; in ours the in-distribution one.
    inside, outside = scores
    ranking = np.concatenate(scores)
    is_inside = np.repeat([1, 0], [500, 300])
    found = measure(peer.FPR95(pos_label=1), ranking, is_inside)
    agree(metrics.fpr_at_95_tpr(inside, outside), found, FLOAT32)
    found = measure(peer.FPR95(pos_label=1), -ranking, 1 - is_inside)
    agree(metrics.fpr_at_95_tpr(-outside, -inside), found, FLOAT32)
    differ(metrics.fpr_at_95_tpr(inside, outside), found)

    members = np.random.default_rng(2).dirichlet(np.ones(4), size=(3, 50))
    by_example = torch.tensor(members).transpose(0, 1)
    for metric, ours in (
        (peer.MutualInformation(), metrics.mutual_information),
        (peer.Disagreement(), metrics.disagreement_rate),
    ):
        metric.set_dtype(torch.float64)
        metric.update(by_example)
        agree(ours(members).mean(), metric.compute(), FLOAT32)

    criteria = pytest.importorskip("torch_uncertainty.ood_criteria")
    ours = uncertainty.logit_scores(np.float32(logits)[None])
    for name, criterion in (
        ("energy", criteria.EnergyCriterion()),
        ("max_logit", criteria.MaxLogitCriterion()),
    ):
        found = criterion(torch.tensor(np.float32(logits))[:, None])
        np.testing.assert_allclose(ours[name], found, rtol=1e-6, atol=1e-6)


def test_netcal(predictions):
    peer = pytest.importorskip("netcal.metrics")
    _, probs, labels = predictions
    agree(metrics.ece(probs, labels), peer.ECE(15).measure(probs, labels))
    agree(metrics.ece(probs, labels, 10), peer.ECE().measure(probs, labels))
    equal = peer.ECE(15, equal_intervals=False).measure(probs, labels)
    agree(metrics.adaptive_ece(probs, labels), equal)
    # Its ACE is the average, not the adaptive error: each bin has the same weight.
    bins = metrics.reliability_bins(probs, labels)
    gaps = np.abs(bins.accuracy - bins.confidence)[bins.counts > 0]
    agree(gaps.mean(), peer.ACE(15).measure(probs, labels))
    differ(metrics.adaptive_ece(probs, labels), gaps.mean())


def test_probmetrics(predictions):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("probmetrics.metrics")
    _, probs, labels = predictions
    p, y = torch.tensor(probs), torch.tensor(labels)
    for ours, metric, tolerance in (
        (metrics.nll, peer.LogLoss(), EXACT),
        (metrics.brier, peer.BrierLoss(), EXACT),
        (metrics.ece, peer.CalibrationError(), FLOAT32),
    ):
        agree(ours(probs, labels), metric.compute_from_labels_probs(y, p), tolerance)


def test_temperatures(predictions):
    """torch-uncertainty has both T and 1/T; netcal's weight is 1/T."""
    logits, probs, labels = predictions
    ours = metrics.fit_temperature(probs, labels).temperature
    torch = pytest.importorskip("torch")
    scaling = pytest.importorskip("netcal.scaling")
    fitted = scaling.TemperatureScaling()
    fitted.fit(probs, labels)
    (inverse,) = np.ravel(fitted.temperature)
    assert 1 / inverse == pytest.approx(ours, rel=1e-3)

    peer = pytest.importorskip("torch_uncertainty.post_processing")
    logging.getLogger().setLevel(logging.ERROR)
    scaler = peer.TemperatureScaler()
    pairs = torch.utils.data.TensorDataset(torch.tensor(logits), torch.tensor(labels))
    scaler.fit(torch.utils.data.DataLoader(pairs, SIZE), progress=False)
    assert float(scaler.temperature[0]) == pytest.approx(ours, rel=1e-3)
    assert float(scaler.inv_temperature[0]) == pytest.approx(1 / ours, rel=1e-3)
