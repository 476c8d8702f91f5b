"""Each metric's value, the thresholds that decide, and nothing about how sure they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]

METRICS: tuple[str, ...] = (
    "auroc",
    "auprc",
    "f1",
    "mcc",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "ece",
)
ECE_BINS = 10


def auroc(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve; ties count half. NaN where a class is missing.

    truth: [n] in 0..1; a value between is a part of a positive and the rest of a negative (soft labels).
    """
    positive, negative, values = _class_weights(truth, score, weights)
    total = positive.sum() * negative.sum()
    if total == 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    starts = tie_starts(values[order])
    positives = np.add.reduceat(positive[order], starts)
    negatives = np.add.reduceat(negative[order], starts)
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + 0.5 * negatives) / total)


def auprc(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Average precision, as scikit-learn defines it: no interpolation. NaN without positives."""
    positive, negative, values = _class_weights(truth, score, weights)
    if positive.sum() == 0:
        return float("nan")
    order = np.argsort(-values, kind="stable")
    starts = tie_starts(values[order])
    positives = np.add.reduceat(positive[order], starts)
    hits, false = np.cumsum(positives), np.cumsum(np.add.reduceat(negative[order], starts))
    kept = positives > 0
    return float((positives[kept] * hits[kept] / (hits[kept] + false[kept])).sum() / positive.sum())


def confusion(truth: ArrayLike, decision: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """TP, FP, FN, TN as [4] floats; truth may be soft."""
    positive, negative, values = _class_weights(truth, decision, weights)
    decided = values > 0
    return np.array(
        [positive[decided].sum(), negative[decided].sum(), positive[~decided].sum(), negative[~decided].sum()]
    )


def f1(truth: ArrayLike, decision: ArrayLike, weights: ArrayLike | None = None) -> float:
    """2 TP / (2 TP + FP + FN). NaN where there is no positive and none is claimed."""
    return float(counted_metrics(confusion(truth, decision, weights))["f1"])


def mcc(truth: ArrayLike, decision: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Matthews' correlation; 0 where every decision is the same (its limit), NaN where the truth has one class."""
    return float(counted_metrics(confusion(truth, decision, weights))["mcc"])


def brier(truth: ArrayLike, score: ArrayLike) -> float:
    """Mean squared error of the probability."""
    error = np.asarray(score, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return float(np.mean(error**2))


def ece(truth: ArrayLike, score: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error of the probability of 'present': mean |predicted - observed| over equal-width bins."""
    values = np.asarray(score, dtype=np.float64)
    gaps = np.bincount(calibration_bin(values, bins), weights=values - np.asarray(truth, np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(values))


def calibration_bin(score: Floats, bins: int = ECE_BINS) -> Ints:
    """The bin of each probability; bins are closed on the right, as in scikit-learn's `calibration_curve`."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], score)


def counted_metrics(counts: Floats) -> dict[str, Floats]:
    """F1, MCC, sensitivity, specificity, PPV and NPV of counts [..., 4] (TP, FP, FN, TN), each [...]; NaN for 0 / 0."""
    tp, fp, fn, tn = (counts[..., column].astype(np.float64) for column in range(4))
    positives, negatives, claimed, cleared = tp + fn, fp + tn, tp + fp, fn + tn
    with np.errstate(divide="ignore", invalid="ignore"):
        product = positives * negatives * claimed * cleared
        correlation = np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(product), 0.0)
        return {
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mcc": np.where((positives > 0) & (negatives > 0), correlation, np.nan),
            "sensitivity": tp / positives,
            "specificity": tn / negatives,
            "ppv": tp / claimed,
            "npv": tn / cleared,
        }


def group_codes(groups: ArrayLike | None, rows: int) -> tuple[Ints, int]:
    """Each row's group as a number from 0, and how many groups there are; None: every row its own."""
    if groups is None:
        return np.arange(rows), rows
    import pandas as pd

    codes, names = pd.factorize(np.asarray(groups))
    return codes.astype(np.intp), len(names)


def tie_starts(ordered: Floats) -> Ints:
    """Where each group of equal values begins in an ordered array."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, int)


def _class_weights(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    labels, values = np.asarray(truth, np.float64), np.asarray(score, np.float64)
    size = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    return labels * size, (1 - labels) * size, values


# --- thresholds -----------------------------------------------------------------------------------------------------


def choose_thresholds(truth: ArrayLike, probs: ArrayLike) -> Floats:
    """The threshold of each finding that gives the largest F1 (decision: probability >= threshold), [f].

    truth [n, f] of 1, 0 and NaN (left out); probs [n, f]. Meant for the validation part only. The threshold lies half
    way to the next lower probability; 0.5 for a finding without positives, of which nothing can be learnt.
    """
    labels, scores = np.asarray(truth, np.float64), np.asarray(probs, np.float64)
    return np.array([_best_f1_threshold(labels[:, f], scores[:, f]) for f in range(labels.shape[1])])


def _best_f1_threshold(truth: Floats, score: Floats) -> float:
    known = ~np.isnan(truth)
    order = np.argsort(-score[known], kind="stable")
    values, positive = score[known][order], truth[known][order] > 0
    if not positive.any():
        return 0.5
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # the last row of each group of ties
    hits = np.cumsum(positive)[last]
    best = int(np.argmax(2 * hits / (last + 1 + positive.sum())))
    chosen = float(values[last[best]])
    lower = float(values[last[best] + 1]) if best + 1 < len(last) else 0.0
    middle = (chosen + lower) / 2
    return middle if lower < middle else chosen
