"""Metrics of a classifier with two answers, their 95% intervals, and differences between two models on the same images.

Numpy only; knows no files, models or findings' meaning. Everything is vectorised over rows and bootstrap replicates.

How the intervals are made (patients are the unit, whatever the number of images of each):

==============================  =====================================================================================
sensitivity ... npv             Wilson's score interval with the effective sample size of the clustered proportion
f1                              the same for TP / (TP + FP + FN), of which F1 is a monotone function
auroc, auprc, mcc               bootstrap standard error on the logit (mcc: Fisher's z) scale, Student's t
brier                           bootstrap standard error on the log scale, Student's t
ece                             inverted test: noise makes the plug-in ECE too large even of a perfect model
means over findings             as auroc, less the bootstrap's bias, freedom by Welch and Satterthwaite; ece as ece
differences                     bootstrap standard error of the paired difference, Student's t; ece: from both limits
==============================  =====================================================================================

benchmarks/metrics.py measures their coverage by simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radia.findings import COMPETITION_5

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
CONFIDENCE = 0.95
CHUNK_CELLS = 4_000_000
"""Replicates are made in chunks of about so many weights: a chunk stays in the processor's cache, memory stays flat."""

RANK_LEVELS = 2000
POOL_REPLICATES = 250
"""Resamples (at least) that rank pooled findings: the slowest part, and only their standard errors need it."""

_SUMS = 5 + ECE_BINS

NAMED_SETS: dict[str, tuple[str, ...]] = {"competition-5": COMPETITION_5}


# --- one number each ------------------------------------------------------------------------------------------------


def auroc(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve; ties count half. NaN where a class is missing.

    truth: [n] in 0..1; a value between is a part of a positive and the rest of a negative (soft labels).
    """
    positive, negative, values = _class_weights(truth, score, weights)
    total = positive.sum() * negative.sum()
    if total == 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    starts = _tie_starts(values[order])
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
    starts = _tie_starts(values[order])
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


# --- DeLong ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeLong:
    """AUROCs of m models on the same rows, [m], and their covariance, [m, m]."""

    values: Floats
    covariance: Floats

    def difference(self, first: int = 0, second: int = 1) -> tuple[float, float]:
        """AUROC of `second` minus that of `first`, and its standard error."""
        spread = self.covariance[first, first] + self.covariance[second, second] - 2 * self.covariance[first, second]
        return float(self.values[second] - self.values[first]), float(np.sqrt(max(spread, 0.0)))


def delong(truth: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None) -> DeLong:
    """DeLong's AUROCs and covariance (DeLong et al. 1988; Sun and Xu 2014), clustered where `groups` are given.

    truth [n] of 1 and 0; scores [n] or [n, m]; groups [n]. With groups, the parts of a patient's images are summed
    before they are squared (Obuchowski 1997). NaN where a class is missing.
    """
    positive = np.asarray(truth) > 0
    columns = np.asarray(scores, np.float64)
    columns = columns if columns.ndim == 2 else columns[:, None]
    values, influence = auroc_influence(positive, columns)
    if groups is None:
        # DeLong's own divisors: each class has its mean removed, and so loses one degree of freedom.
        m, n = int(positive.sum()), int((~positive).sum())
        influence[:, positive] *= np.sqrt(m / max(m - 1, 1))
        influence[:, ~positive] *= np.sqrt(n / max(n - 1, 1))
        return DeLong(values, influence @ influence.T)
    codes, count = group_codes(groups, len(positive))
    return DeLong(values, clustered_covariance(influence, codes, count))


def auroc_influence(truth: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """AUROCs [m] of scores [n, m], and how much each row moves them, [m, n]; NaN where a class is missing."""
    m, n, models = int(truth.sum()), int((~truth).sum()), scores.shape[1]
    if m == 0 or n == 0:
        return np.full(models, np.nan), np.full((models, len(truth)), np.nan)
    values, influence = np.empty(models), np.empty((models, len(truth)))
    for k in range(models):
        of_positives, of_negatives = _placements(scores[truth, k], scores[~truth, k])
        values[k] = of_positives.mean()
        influence[k, truth] = (of_positives - values[k]) / m
        influence[k, ~truth] = (of_negatives - values[k]) / n
    return values, influence


def clustered_covariance(influence: Floats, codes: Ints, count: int) -> Floats:
    """Covariance [m, m] of m statistics from each row's influence [m, n]; rows of a group move together."""
    sums = np.array([np.bincount(codes, weights=row, minlength=count) for row in influence])
    active = len(np.unique(codes))
    return np.asarray(sums @ sums.T * active / max(active - 1, 1))


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """For each positive the part of negatives below it; for each negative the part of positives above it (ties half).

    From midranks: the rank among all minus the rank in the own class counts the other class.
    """
    m, n = len(positives), len(negatives)
    both = midranks(np.concatenate([positives, negatives]))
    return (both[:m] - midranks(positives)) / n, 1 - (both[m:] - midranks(negatives)) / m


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values)
    starts = _tie_starts(values[order])
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + 0.5 * (sizes + 1), sizes)
    return ranks


# --- bootstrap by patient -------------------------------------------------------------------------------------------


def group_codes(groups: ArrayLike | None, rows: int) -> tuple[Ints, int]:
    """Each row's group as a number from 0, and how many groups there are; None: every row its own."""
    if groups is None:
        return np.arange(rows), rows
    import pandas as pd

    codes, names = pd.factorize(np.asarray(groups))
    return codes.astype(np.intp), len(names)


def resample(codes: Ints, count: int, replicates: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each row is drawn when whole groups are drawn with replacement: chunks [r, rows], in all `replicates`.

    The same seed gives the same weights: two models are compared on the same resamples.
    """
    rng = np.random.default_rng(seed)
    single = len(codes) == count and bool(np.array_equal(codes, np.arange(count)))
    step = max(1, CHUNK_CELLS // max(len(codes), 1))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        drawn = rng.integers(0, count, size=(size, count), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * np.int32(count)
        times = np.bincount(drawn.ravel(), minlength=size * count).astype(np.uint8).reshape(size, count)
        yield times if single else np.take(times, codes, axis=1)


@dataclass(frozen=True)
class Column:
    """One finding of one model, made ready: its rows with a known truth, ordered once for all replicates."""

    rows: Ints
    truth: Bools
    score: Floats
    decision: Bools

    @staticmethod
    def of(truth: Floats, score: Floats, decision: Bools) -> Column:
        """From full columns [n]; rows whose truth is NaN are left out."""
        rows = np.flatnonzero(~np.isnan(truth))
        return Column(rows, truth[rows] > 0, score[rows], decision[rows])

    @property
    def positives(self) -> int:
        """Rows whose truth is present."""
        return int(self.truth.sum())

    @property
    def rarer(self) -> int:
        """Rows of the rarer class: what limits every estimate."""
        return min(self.positives, len(self.truth) - self.positives)

    def within(self, rows: Bools) -> Column:
        """This column on some rows of the table, renumbered from 0; rows is [n] of booleans."""
        kept = rows[self.rows]
        place = np.cumsum(rows) - 1
        return Column(place[self.rows[kept]], self.truth[kept], self.score[kept], self.decision[kept])

    def gaps(self) -> Floats:
        """Each bin's part of the calibration error with its sign, [bins]."""
        gap = np.bincount(calibration_bin(self.score), weights=self.score - self.truth, minlength=ECE_BINS)
        return np.asarray(gap / max(len(self.rows), 1))

    def counts(self) -> Floats:
        """TP, FP, FN, TN."""
        return confusion(self.truth, self.decision)

    def point(self) -> dict[str, float]:
        """Every metric's value; NaN where it does not exist."""
        if not len(self.rows):
            return dict.fromkeys(METRICS, float("nan"))
        decided = {name: float(value) for name, value in counted_metrics(self.counts()).items()}
        return {
            "auroc": auroc(self.truth, self.score),
            "auprc": auprc(self.truth, self.score),
            **decided,
            "brier": brier(self.truth, self.score),
            "ece": ece(self.truth, self.score),
        }

    def sums(self) -> NDArray[np.float32]:
        """What must be summed over rows for every metric without ranks, [rows, 5 + bins]: TP ... TN, squares, gaps."""
        out = np.zeros((len(self.rows), _SUMS), np.float32)
        out[np.arange(len(self.rows)), _cell(self.truth, self.decision)] = 1
        gap = self.score - self.truth
        out[:, 4] = gap**2
        out[np.arange(len(self.rows)), 5 + calibration_bin(self.score)] = gap
        return out

    def ranked(self) -> Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]:
        """A function from weights [r, rows of the table] to AUROC [r] and AUPRC [r].

        Only where a positive lies does either curve need a value. Above `RANK_LEVELS` distinct positive scores,
        neighbours are taken as ties: that moves a replicate by far less than resampling does.
        """
        order = np.argsort(self.score, kind="stable")
        truth, score, rows = self.truth[order], self.score[order], self.rows[order]
        positive_rows, negative_rows = rows[truth], rows[~truth]
        starts = _tie_starts(score[truth])
        distinct = score[truth][starts]
        low, high = (np.searchsorted(score[~truth], distinct, side) for side in ("left", "right"))
        if len(starts) > RANK_LEVELS:
            kept = np.linspace(0, len(starts) - 1, RANK_LEVELS).astype(np.intp)
            starts, low = starts[kept], low[kept]
            high = np.append(low[1:], len(negative_rows))
        edges = np.append(starts, len(positive_rows))
        borders = np.concatenate([[0], np.column_stack([low, high]).ravel(), [len(negative_rows)]])

        def areas(weights: NDArray[np.uint8]) -> tuple[Floats, Floats]:
            positives = _segment_sums(np.take(weights, positive_rows, axis=1), edges)
            between = np.cumsum(_segment_sums(np.take(weights, negative_rows, axis=1), borders), axis=1)
            under, upto = between[:, 0:-1:2], between[:, 1::2]
            negatives, total = between[:, -1], positives.sum(axis=1)
            hits = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]
            claimed = hits + negatives[:, None] - under
            with np.errstate(divide="ignore", invalid="ignore"):
                area = 0.5 * np.einsum("rk,rk->r", positives, under + upto) / (total * negatives)
                precision = np.divide(hits, claimed, out=np.zeros_like(hits), where=claimed > 0)
                return area, np.einsum("rk,rk->r", positives, precision) / total

        return areas


def _cell(truth: Bools, decision: Bools) -> Ints:
    """0 TP, 1 FP, 2 FN, 3 TN."""
    return np.where(decision, 0, 2) + np.where(truth, 0, 1)


@dataclass(frozen=True)
class Draws:
    """Bootstrap replicates: {metric: [replicates, k]}, NaN where it does not exist; gaps [replicates, k, bins].

    A gap is a bin's part of the calibration error with its sign: (predicted - observed) summed, over all rows.
    """

    metrics: dict[str, Floats]
    gaps: Floats


def bootstrap(
    columns: Sequence[Column], pools: Sequence[Sequence[int]], codes: Ints, count: int, *, replicates: int, seed: int
) -> Draws:
    """Every metric in every replicate, of each column and then of each pool.

    A pool is a set of columns whose cells are thrown together (the micro average).
    """
    pooled = [pool_columns([columns[k] for k in pool]) for pool in pools]
    gaps = np.full((replicates, len(columns) + len(pools), ECE_BINS), np.nan)
    ranked = [column.ranked() if column.rarer else None for column in (*columns, *pooled)]
    sums = np.zeros((len(codes), len(columns), _SUMS), np.float32)
    for k, column in enumerate(columns):
        sums[column.rows, k] = column.sums()
    summed = sums.reshape(len(codes), -1)
    out = {metric: np.full((replicates, len(ranked)), np.nan) for metric in METRICS}
    done = 0
    for weights in resample(codes, count, replicates, seed):
        part = slice(done, done + len(weights))
        done += len(weights)
        for k, areas in enumerate(ranked):
            if areas is not None and (k < len(columns) or part.start < POOL_REPLICATES):
                out["auroc"][part, k], out["auprc"][part, k] = areas(weights)
        totals = (weights.astype(np.float32) @ summed).astype(np.float64).reshape(len(weights), len(columns), _SUMS)
        totals = np.concatenate([totals, *(totals[:, list(pool)].sum(axis=1, keepdims=True) for pool in pools)], axis=1)
        for name, values in _summed_metrics(totals).items():
            out[name][part] = values
        with np.errstate(invalid="ignore"):
            gaps[part] = totals[..., 5:] / totals[..., :4].sum(axis=-1, keepdims=True)
    return Draws(out, gaps)


def pool_columns(columns: Sequence[Column]) -> Column:
    """All cells of several findings as one."""
    return Column(
        np.concatenate([column.rows for column in columns]),
        np.concatenate([column.truth for column in columns]),
        np.concatenate([column.score for column in columns]),
        np.concatenate([column.decision for column in columns]),
    )


def _summed_metrics(totals: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        size = totals[..., :4].sum(axis=-1)
        return {
            **counted_metrics(totals[..., :4]),
            "brier": totals[..., 4] / size,
            "ece": np.abs(totals[..., 5:]).sum(axis=-1) / size,
        }


def _segment_sums(weights: NDArray[np.uint8], borders: Ints) -> Floats:
    """Sums of each row over the columns from one border to the next, [r, borders - 1]; empty segments give 0."""
    filled = borders[1:] > borders[:-1]
    out = np.zeros((len(weights), len(borders) - 1))
    if filled.all() and len(borders) == weights.shape[1] + 1:
        out[:] = weights
    elif filled.any():
        inside = weights[:, : borders[-1]]
        out[:, filled] = np.add.reduceat(inside, borders[:-1][filled], axis=1, dtype=np.int32)
    return out


def _tie_starts(ordered: Floats) -> Ints:
    """Where each group of equal values begins in an ordered array."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, int)


def _class_weights(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    labels, values = np.asarray(truth, np.float64), np.asarray(score, np.float64)
    size = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    return labels * size, (1 - labels) * size, values


# --- intervals ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A value and its 95% limits. NaN stands for what cannot be computed; `why` then says the reason."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    why: str | None = None

    def as_json(self) -> dict[str, float | str | None]:
        """{"value", "low", "high"}, null for NaN, and "why" where there is a reason."""
        numbers: dict[str, float | str | None] = {
            name: float(number) if np.isfinite(number) else None
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return numbers if self.why is None else {**numbers, "why": self.why}


def shown(interval: Mapping[str, Any], *, signed: bool = False) -> str:
    """'0.812 (0.790 to 0.833)' for a person."""
    if interval["value"] is None:
        return "not known"
    form = "{:+.3f}" if signed else "{:.3f}"
    value = form.format(interval["value"])
    if interval["low"] is None:
        return value
    return f"{value} ({form.format(interval['low'])} to {form.format(interval['high'])})"


def wilson(part: float, size: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score limits of a proportion seen in `size` independent trials."""
    z2 = _normal_quantile(confidence) ** 2
    middle = (part + z2 / (2 * size)) / (1 + z2 / size)
    half = np.sqrt(z2 * (part * (1 - part) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def effective_size(hits: Bools, inside: Bools, codes: Ints, count: int) -> float:
    """How many independent trials a clustered proportion (hits among inside, by rows) is worth (Rao and Scott 1992)."""
    size = float(inside.sum())
    clusters = np.bincount(codes[inside], minlength=count)
    if clusters.max(initial=0) <= 1:
        return size
    hit = np.bincount(codes[inside & hits], minlength=count)
    part = hit.sum() / size
    if part in (0.0, 1.0):
        return float((clusters > 0).sum())
    variance = ((hit - part * clusters) ** 2).sum() * count / max(count - 1, 1) / size**2
    return float(np.clip(part * (1 - part) / variance, 1.0, size)) if variance > 0 else size


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """How many standard errors lie on each side of a value; fewer than 1 degree of freedom count as 1."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1.0), 0.5 + confidence / 2))


def deviation(draws: Floats) -> float:
    """Standard deviation of the replicates in which the metric exists; NaN with fewer than 20 of them."""
    known = draws[np.isfinite(draws)]
    return float(known.std(ddof=1)) if len(known) >= 20 else float("nan")


def _on_scale(
    value: float, draws: Floats, freedom: float, forward: Callable[[Floats], Floats], back: Callable[[float], float]
) -> tuple[float, float]:
    """value ± t * sd of the replicates, both on the scale of `forward`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        center = float(forward(np.array(value)))
        spread = deviation(forward(draws))
    half = t_quantile(freedom) * spread
    return back(center - half), back(center + half)


def _ece_limits(gaps: Floats, draws: Floats) -> tuple[float, float]:
    """Limits of the mean ECE of k findings from their gaps [k, bins] and the gaps' replicates [r, k, bins].

    The truth is taken to be `scale` times the gaps seen; the limits are the scales under which an ECE as large as the
    one seen is neither too rare from below nor from above. A perfectly calibrated model's interval so reaches 0.
    """
    noise = draws[np.isfinite(draws).all(axis=(1, 2))] - gaps
    seen = float(np.abs(gaps).sum(axis=1).mean())

    def quantile(scale: float, level: float) -> float:
        return float(np.quantile(np.abs(scale * gaps + noise).sum(axis=(1, 2)) / len(gaps), level))

    low = _crossing(lambda scale: quantile(scale, (1 + CONFIDENCE) / 2) - seen)
    high = _crossing(lambda scale: quantile(scale, (1 - CONFIDENCE) / 2) - seen)
    return min(low, 1.0) * seen, min(max(high, 1.0) * seen, 1.0)


def _crossing(rising: Callable[[float], float], start: float = 0.0, end: float = 8.0) -> float:
    """Where a rising function passes 0 between start and end; start or end where it does not. By bisection."""
    if rising(start) >= 0:
        return start
    for _ in range(18):
        middle = (start + end) / 2
        start, end = (start, middle) if rising(middle) >= 0 else (middle, end)
    return end


def _logit(part: Floats) -> Floats:
    return np.asarray(np.log(part) - np.log1p(-part))


def _expit(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _limits(metric: str, value: float, draws: Floats, column: Column, codes: Ints, count: int) -> tuple[float, float]:
    """The 95% limits of one metric of one finding, by the way that the module's docstring names."""
    freedom = column.rarer - 1
    if metric in _PROPORTIONS:
        hits, inside = _PROPORTIONS[metric](column.truth, column.decision)
        size = effective_size(hits, inside, codes[column.rows], count)
        low, high = wilson(float(hits[inside].mean()), size)
        return (2 * low / (1 + low), 2 * high / (1 + high)) if metric == "f1" else (low, high)
    if metric == "brier":
        return _on_scale(value, draws, len(column.rows) - 1, np.log, lambda x: float(min(np.exp(x), 1.0)))
    if metric == "mcc":
        return _on_scale(value, draws, freedom, np.arctanh, lambda x: float(np.tanh(x)))
    if value >= 1.0:  # no replicate differs: the limits of a proportion that was always 1 among the rarer class
        return wilson(1.0, max(column.rarer, 1))[0], 1.0
    return _on_scale(value, draws, freedom, _logit, _expit)


_PROPORTIONS: dict[str, Callable[[Bools, Bools], tuple[Bools, Bools]]] = {
    "f1": lambda truth, decision: (truth & decision, truth | decision),
    "sensitivity": lambda truth, decision: (decision, truth),
    "specificity": lambda truth, decision: (~decision, ~truth),
    "ppv": lambda truth, decision: (truth, decision),
    "npv": lambda truth, decision: (~truth, ~decision),
    "false_positive_rate": lambda truth, decision: (decision, ~truth),
}
"""From truth and decision to the rows that count as hits and the rows they are counted among (f1: Jaccard's index)."""


def recalibration(truth: Bools, score: Floats, codes: Ints, count: int) -> tuple[Interval, Interval]:
    """Slope and intercept of the logistic regression of truth on the logit of the probability (Cox 1958).

    1 and 0 for a calibrated model; a slope below 1 means too extreme. Limits from the sandwich variance by group. NaN
    where a class is missing or the two classes do not overlap, in which case the slope has no end.
    """
    missing = Interval(float("nan"), why="one class only, or classes that do not overlap")
    if not truth.any() or truth.all() or score[truth].min() >= score[~truth].max():
        return missing, missing
    design = np.column_stack([_logit(np.clip(score, 1e-6, 1 - 1e-6)), np.ones(len(score))])
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-design @ weights))
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(information) > 1e12:
            return missing, missing
        step = np.linalg.solve(information, design.T @ (truth - fitted))
        weights = weights + step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    moved = np.linalg.solve(information, (design * (truth - fitted)[:, None]).T)
    spread = np.sqrt(np.diag(clustered_covariance(moved, codes, count)))
    half = t_quantile(min(truth.sum(), (~truth).sum()) - 1) * spread
    slope, intercept = (Interval(float(w), float(w - h), float(w + h)) for w, h in zip(weights, half, strict=True))
    return slope, intercept


# --- one model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assessment:
    """One model on one set of rows: its columns, every metric's value and every replicate."""

    findings: tuple[str, ...]
    columns: tuple[Column, ...]
    pools: dict[str, tuple[int, ...]]
    codes: Ints
    groups: int
    values: dict[str, Floats]
    draws: Draws
    min_positives: int

    def unfit(self, k: int) -> str | None:
        """Why a finding is not averaged; None where it is."""
        column = self.columns[k]
        for name, number in (("positive", column.positives), ("negative", len(column.rows) - column.positives)):
            if number < self.min_positives:
                return f"{number} {name}s, fewer than {self.min_positives}"
        return None

    def averaged(self, pool: str, metric: str) -> list[int]:
        """The findings of a set whose mean of a metric is taken."""
        members = self.pools[pool]
        return [k for k in members if self.unfit(k) is None and np.isfinite(self.values[metric][k])]


def assess(
    truth: ArrayLike,
    probs: ArrayLike,
    *,
    findings: Sequence[str],
    thresholds: ArrayLike | Mapping[str, float] | None = None,
    decisions: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    min_positives: int = 3,
) -> Assessment:
    """Values and bootstrap replicates of every metric of every finding.

    truth [n, f]: 1, 0, and NaN where it is not known (such cells are left out); probs [n, f] in 0..1; decisions [n, f]
    of 0 and 1, or else made from thresholds (0.5 where none is given); groups [n]: the patient of each row.
    """
    labels, scores = np.asarray(truth, np.float64), np.asarray(probs, np.float64)
    decided = decisions_of(scores, findings, thresholds, decisions)
    columns = tuple(Column.of(labels[:, k], scores[:, k], decided[:, k]) for k in range(len(findings)))
    pools = {"all": tuple(range(len(findings)))}
    for name, members in NAMED_SETS.items():
        if set(members) <= set(findings):
            pools[name] = tuple(list(findings).index(member) for member in members)
    codes, count = group_codes(groups, len(labels))
    points = [column.point() for column in columns]
    points += [pool_columns([columns[k] for k in pool]).point() for pool in pools.values()]
    return Assessment(
        findings=tuple(findings),
        columns=columns,
        pools=pools,
        codes=codes,
        groups=count,
        values={metric: np.array([point[metric] for point in points]) for metric in METRICS},
        draws=bootstrap(columns, list(pools.values()), codes, count, replicates=replicates, seed=seed),
        min_positives=min_positives,
    )


def table_of(model: Assessment) -> dict[str, Any]:
    """The JSON of `radia evaluate` (DESIGN.md, Contracts): findings, means and micro averages."""
    return {
        "n": len(model.codes),
        "patients": model.groups,
        "findings": {name: _finding_json(model, k) for k, name in enumerate(model.findings)},
        "means": _each_set(model, lambda pool: {m: _mean(model, pool, m) for m in METRICS}),
        "micro": _each_set(model, lambda pool: {m: _micro(model, pool, m).as_json() for m in METRICS}),
    }


def _finding_json(model: Assessment, k: int) -> dict[str, Any]:
    column = model.columns[k]
    out: dict[str, Any] = {
        "n": len(column.rows),
        "positives": column.positives,
        "prevalence": column.positives / len(column.rows) if len(column.rows) else None,
    }
    unfit = model.unfit(k)
    if unfit is not None:
        out["why"] = f"not averaged: {unfit}"
    slope, intercept = recalibration(column.truth, column.score, model.codes[column.rows], model.groups)
    return {
        **out,
        **{metric: _estimate(model, k, metric, column).as_json() for metric in METRICS},
        "calibration_slope": slope.as_json(),
        "calibration_intercept": intercept.as_json(),
    }


def _estimate(model: Assessment, k: int, metric: str, column: Column) -> Interval:
    value = float(model.values[metric][k])
    if not np.isfinite(value):
        return Interval(value, why=_missing(metric, column))
    if metric == "mcc" and len(np.unique(column.decision)) == 1:
        return Interval(value, why="every decision is the same")
    if metric == "ece":
        low, high = _ece_limits(column.gaps()[None], model.draws.gaps[:, [k]])
    else:
        low, high = _limits(metric, value, model.draws.metrics[metric][:, k], column, model.codes, model.groups)
    return Interval(value, low, high, None if np.isfinite(low) else "too few resamples in which it exists")


def _missing(metric: str, column: Column) -> str:
    if not len(column.rows):
        return "no row with a known truth"
    if metric in ("ppv", "f1") and not column.decision.any():
        return "nothing was called present" if metric == "ppv" else "nothing is present and nothing was called present"
    if metric == "npv":
        return "nothing was called absent"
    return "no positives" if column.positives == 0 else "no negatives"


def _each_set(model: Assessment, make: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """`make` for 'all' and each named set; nulls where the findings of a set are not all there."""
    out = {pool: make(pool) for pool in model.pools}
    for name, members in NAMED_SETS.items():
        if name not in out:
            why = f"no column for {', '.join(m for m in members if m not in model.findings)}"
            out[name] = {metric: Interval(float("nan"), why=why).as_json() for metric in METRICS}
    return out


def _mean(model: Assessment, pool: str, metric: str) -> dict[str, Any]:
    kept = model.averaged(pool, metric)
    if not kept:
        return {**Interval(float("nan"), why="no finding can be averaged").as_json(), "over": 0}
    value = float(model.values[metric][kept].mean())
    left = [model.findings[k] for k in model.pools[pool] if k not in kept]
    low, high = _mean_limits(model, metric, kept, value)
    return {**Interval(value, low, high, f"without {', '.join(left)}" if left else None).as_json(), "over": len(kept)}


def _mean_limits(model: Assessment, metric: str, kept: list[int], value: float) -> tuple[float, float]:
    if metric == "ece":
        return _ece_limits(np.array([model.columns[k].gaps() for k in kept]), model.draws.gaps[:, kept])
    deviations = model.draws.metrics[metric][:, kept] - model.values[metric][kept]
    moved = row_means(deviations)
    half = t_quantile(_pooled_freedom(deviations, [model.columns[k] for k in kept])) * deviation(moved)
    if metric == "mcc":
        return max(value - half, -1.0), min(value + half, 1.0)
    if not 0 < value < 1:
        return wilson(value, sum(max(model.columns[k].rarer, 1) for k in kept))
    # Small biases of single findings (AUPRC: upwards) add up in a mean; the replicates show how large they are.
    center = float(_logit(np.clip(value - np.nanmean(moved), 1e-6, 1 - 1e-6)))
    half /= value * (1 - value)
    return _expit(center - half), _expit(center + half)


def _pooled_freedom(deviations: Floats, columns: Sequence[Column]) -> float:
    """Degrees of freedom of a mean over findings (Welch 1938, Satterthwaite 1946).

    deviations: [replicates, findings]; a finding's own freedom is its rarer class less one, so that rare
    findings count for what they add to the mean's variance.
    """
    variance = np.array([deviation(deviations[:, k]) ** 2 for k in range(deviations.shape[1])])
    own = np.array([max(column.rarer - 1, 1) for column in columns], np.float64)
    known = np.isfinite(variance) & (variance > 0)
    if not known.any():
        return float(own.sum())
    return float(variance[known].sum() ** 2 / (variance[known] ** 2 / own[known]).sum())


def row_means(draws: Floats) -> Floats:
    """Mean of each row's finite cells; NaN where there is none."""
    known = np.isfinite(draws)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, draws, 0.0).sum(axis=1) / known.sum(axis=1))


def _micro(model: Assessment, pool: str, metric: str) -> Interval:
    position = len(model.columns) + list(model.pools).index(pool)
    return _estimate(model, position, metric, pool_columns([model.columns[k] for k in model.pools[pool]]))


def decisions_of(
    scores: Floats,
    findings: Sequence[str],
    thresholds: ArrayLike | Mapping[str, float] | None,
    decisions: ArrayLike | None = None,
) -> Bools:
    """Decisions [n, f]: those given, or probability >= threshold (0.5 where none is given)."""
    if decisions is not None:
        return np.asarray(decisions) > 0
    if thresholds is None:
        limits: Floats = np.full(len(findings), 0.5)
    elif isinstance(thresholds, Mapping):
        limits = np.array([thresholds.get(finding, 0.5) for finding in findings], np.float64)
    else:
        limits = np.asarray(thresholds, np.float64)
    return np.asarray(scores >= limits)


# --- two models -----------------------------------------------------------------------------------------------------


def differences(base: Assessment, candidate: Assessment) -> dict[str, Any]:
    """Candidate minus base on the same rows: {"findings": {F: {M: ...}}, "means": {S: {M: ...}}}.

    Each entry has value, low, high and p (two-sided), p_holm over the findings of one metric; `auroc` also `delong`.
    Both assessments must have been made with the same groups, replicates and seed: only then are replicates paired.
    """
    findings = {name: _paired(base, candidate, k) for k, name in enumerate(base.findings)}
    for metric in METRICS:
        _add_holm([entry[metric] for entry in findings.values()])
    _add_holm([entry["auroc"]["delong"] for entry in findings.values()])
    means = {pool: {m: _paired_mean(base, candidate, pool, m) for m in METRICS} for pool in base.pools}
    return {"findings": findings, "means": means}


def _paired(base: Assessment, candidate: Assessment, k: int) -> dict[str, Any]:
    out = {}
    freedom = base.columns[k].rarer - 1
    for metric in METRICS:
        if metric == "ece":
            out[metric] = _ece_difference(
                *(_estimate(model, k, metric, model.columns[k]) for model in (base, candidate))
            )
            continue
        value = float(candidate.values[metric][k] - base.values[metric][k])
        spread = deviation(candidate.draws.metrics[metric][:, k] - base.draws.metrics[metric][:, k])
        spread = float(np.hypot(spread, _doubt(metric, base.columns[k], candidate.columns[k])))
        out[metric] = _difference_json(value, spread, freedom)
    column = base.columns[k]
    both = np.column_stack([column.score, candidate.columns[k].score])
    value, spread = delong(column.truth, both, base.codes[column.rows]).difference()
    out["auroc"]["delong"] = _difference_json(value, spread, freedom)
    return out


def _doubt(metric: str, base: Column, candidate: Column) -> float:
    """Standard error that half a pair of opposite decisions more would add to a difference.

    Where the models differ in no row, neither does any resample; the next row might (Agresti and Min 2005). AUROC: that
    one positive more passes a tenth of the negatives in one model only, which near 1 no resample shows.
    """
    if np.array_equal(base.score, candidate.score):
        return 0.0
    if metric == "auroc":
        return 0.1 / (base.positives + 2)
    if metric == "mcc":
        claims = min(int(column.decision.sum()) for column in (base, candidate))
        return float(0.5 / np.sqrt((base.rarer + 2) * (claims + 1)))
    if metric not in _PROPORTIONS:
        return 0.0
    inside = (_PROPORTIONS[metric](column.truth, column.decision)[1].sum() for column in (base, candidate))
    return float((1.0 if metric == "f1" else 0.5) / (min(inside) + 2))


def _ece_difference(base: Interval, candidate: Interval) -> dict[str, Any]:
    """From the furthest limits of both: noise lifts both errors together, so that neither makes up for the other."""
    value = candidate.value - base.value
    if not np.isfinite(value):
        return {**Interval(float("nan"), why="it does not exist for both models").as_json(), "p": None}
    return {**Interval(value, candidate.low - base.high, candidate.high - base.low).as_json(), "p": None}


def _paired_mean(base: Assessment, candidate: Assessment, pool: str, metric: str) -> dict[str, Any]:
    kept = [k for k in base.averaged(pool, metric) if k in candidate.averaged(pool, metric)]
    if not kept:
        return {**_difference_json(float("nan"), float("nan"), 1), "over": 0}
    if metric == "ece":
        both = (model.values[metric][kept].mean() for model in (base, candidate))
        limits = (_mean_limits(model, metric, kept, float("nan")) for model in (base, candidate))
        pair = (Interval(float(v), *edges) for v, edges in zip(both, limits, strict=True))
        return {**_ece_difference(*pair), "over": len(kept)}
    value = float((candidate.values[metric][kept] - base.values[metric][kept]).mean())
    gap = candidate.draws.metrics[metric][:, kept] - base.draws.metrics[metric][:, kept]
    center = candidate.values[metric][kept] - base.values[metric][kept]
    spread = deviation(row_means(gap - center))
    freedom = _pooled_freedom(gap - center, [base.columns[k] for k in kept])
    return {**_difference_json(value, spread, freedom), "over": len(kept)}


def _difference_json(value: float, spread: float, freedom: float) -> dict[str, Any]:
    """A difference, its limits and its two-sided p by Student's t."""
    from scipy.special import stdtr

    if not (np.isfinite(value) and np.isfinite(spread)):
        return {**Interval(float("nan"), why="it does not exist for both models").as_json(), "p": None}
    half = t_quantile(freedom) * spread
    same = 1.0 if value == 0 else 0.0
    p = float(2 * stdtr(max(freedom, 1.0), -abs(value) / spread)) if spread > 0 else same
    return {**Interval(value, value - half, value + half).as_json(), "p": p}


def _add_holm(entries: Sequence[dict[str, Any]]) -> None:
    known = [entry for entry in entries if entry["p"] is not None]
    for entry, adjusted in zip(known, holm([entry["p"] for entry in known]), strict=True):
        entry["p_holm"] = float(adjusted)


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjustment of p-values (Holm 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


# --- two models in a subgroup, without resampling -------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows of one finding; limits from each row's influence instead of resamples."""

    base: Column
    candidate: Column

    def rates(self, metric: str) -> tuple[Floats, Floats]:
        """The metric of base and candidate, [2], and each row's influence on them, [2, rows of the columns]."""
        if metric == "auroc":
            return auroc_influence(self.base.truth, np.column_stack([self.base.score, self.candidate.score]))
        parts = [_rate_influence(column, metric) for column in (self.base, self.candidate)]
        return np.array([part[0] for part in parts]), np.array([part[1] for part in parts])

    def json(self, metric: str, codes: Ints, count: int) -> dict[str, Any]:
        """{"base", "candidate", "difference"}, each with value, low, high. `codes`: the group of each table row."""
        values, influence = self.rates(metric)
        return _compared(values, influence, codes[self.base.rows], count, self.base.rarer - 1)


def mean_comparison(comparisons: Sequence[Comparison], metric: str, codes: Ints, count: int) -> dict[str, Any]:
    """As `Comparison.json`, for the mean over findings in which the metric exists."""
    values, influence, freedom = [], [], 0
    for comparison in comparisons:
        value, moved = comparison.rates(metric)
        if np.isfinite(value).all():
            values.append(value)
            influence.append(np.zeros((2, len(codes))))
            influence[-1][:, comparison.base.rows] = moved
            freedom += comparison.base.rarer
    if not values:
        return _compared(np.full(2, np.nan), np.full((2, len(codes)), np.nan), codes, count, 1)
    return _compared(np.mean(values, axis=0), np.mean(influence, axis=0), codes, count, freedom - 1)


def _rate_influence(column: Column, metric: str) -> tuple[float, Floats]:
    """A ratio of counts and each row's influence on it: (hit - ratio * inside) / sum of inside."""
    hits, inside = _PROPORTIONS[metric](column.truth, column.decision)
    top, bottom = (hits & inside).astype(np.float64), inside.astype(np.float64)
    if metric == "f1":  # 2 TP / (2 TP + FP + FN)
        top, bottom = 2 * top, bottom + top
    size = bottom.sum()
    if size == 0:
        return float("nan"), np.full(len(top), np.nan)
    value = top.sum() / size
    return float(value), (top - value * bottom) / size


def _compared(values: Floats, influence: Floats, codes: Ints, count: int, freedom: float) -> dict[str, Any]:
    if not np.isfinite(values).all():
        missing = Interval(float("nan"), why="one class or no decision of one kind").as_json()
        return {"base": missing, "candidate": missing, "difference": missing}
    covariance = clustered_covariance(influence, codes, count)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    gap = np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0))
    out = {
        name: Interval(float(values[k]), *_bounded(float(values[k]), float(spread[k]), freedom)).as_json()
        for k, name in enumerate(("base", "candidate"))
    }
    half, difference = t_quantile(freedom) * gap, float(values[1] - values[0])
    return {**out, "difference": Interval(difference, difference - half, difference + half).as_json()}


def _bounded(value: float, spread: float, freedom: float) -> tuple[float, float]:
    """Limits of a part of 1 on the logit scale, by the delta method; Wilson's at 0 and 1."""
    if value <= 0.0 or value >= 1.0:
        return wilson(value, max(freedom + 1, 1.0))
    half = t_quantile(freedom) * spread / (value * (1 - value))
    center = float(_logit(np.array(value)))
    return _expit(center - half), _expit(center + half)
