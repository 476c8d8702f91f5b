"""95% limits of one value: from replicates, from Wilson's score, from other limits, from a regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from radia.metrics.delong import clustered_covariance
from radia.metrics.points import Bools, Floats, Ints
from radia.metrics.replicates import Column

CONFIDENCE = 0.95


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
    value: float,
    draws: Floats,
    freedom: float,
    forward: Callable[[Floats], Floats],
    back: Callable[[float], float],
    *,
    widen: float = 1.0,
    doubt: float = 0.0,
) -> tuple[float, float]:
    """value ± t * sd of the replicates, both on the scale of `forward`; doubt: a standard error on it they lack."""
    with np.errstate(divide="ignore", invalid="ignore"):
        center = float(forward(np.array(value)))
        spread = float(np.hypot(deviation(forward(draws)) * widen, doubt))
    half = t_quantile(freedom) * spread
    return back(center - half), back(center + half)


def ece_limits(gaps: Floats, draws: Floats) -> tuple[float, float]:
    """Limits of the mean ECE of k findings from their gaps [k, bins] and the gaps' replicates [r, k, bins].

    The truth is taken to be `scale` times the gaps seen; the limits are the scales under which an ECE as large as the
    one seen is neither too rare from below nor from above. A perfectly calibrated model's interval so reaches 0.
    """
    noise = draws[np.isfinite(draws).all(axis=(1, 2))] - gaps
    seen = float(np.abs(gaps).sum(axis=1).mean())

    def quantile(scale: float, level: float) -> float:
        return float(np.quantile(np.abs(scale * gaps + noise).sum(axis=(1, 2)) / len(gaps), level))

    low = crossing(lambda scale: quantile(scale, (1 + CONFIDENCE) / 2) - seen)
    high = crossing(lambda scale: quantile(scale, (1 - CONFIDENCE) / 2) - seen)
    return min(low, 1.0) * seen, min(max(high, 1.0) * seen, 1.0)


def crossing(rising: Callable[[float], float], start: float = 0.0, end: float = 8.0) -> float:
    """Where a rising function passes 0 between start and end; start or end where it does not. By bisection."""
    if rising(start) >= 0:
        return start
    for _ in range(18):
        middle = (start + end) / 2
        start, end = (start, middle) if rising(middle) >= 0 else (middle, end)
    return end


def logit(part: Floats) -> Floats:
    """The logarithm of the odds of proportions between 0 and 1."""
    return np.asarray(np.log(part) - np.log1p(-part))


def expit(value: float) -> float:
    """The proportion of a logit."""
    return float(1 / (1 + np.exp(-value)))


def limits_of(metric: str, value: float, draws: Floats, column: Column, codes: Ints, count: int) -> tuple[float, float]:
    """The 95% limits of one metric of one finding, by the way that the module's docstring names."""
    freedom = column.rarer - 1
    if metric in PROPORTIONS:
        return Proportion.of(metric, column, codes, count).limits()
    if metric == "brier":
        return _on_scale(value, draws, len(column.rows) - 1, np.log, lambda x: float(min(np.exp(x), 1.0)))
    if metric == "mcc":
        doubt = mcc_doubt(column) / max(1 - value**2, 1e-6)
        return _on_scale(value, draws, freedom, np.arctanh, lambda x: float(np.tanh(x)), doubt=doubt)
    if value >= 1.0:  # no replicate differs: the limits of a proportion that was always 1 among the rarer class
        return wilson(1.0, max(column.rarer, 1))[0], 1.0
    return _on_scale(value, draws, freedom, logit, expit, widen=unbiased(column) if metric == "auroc" else 1.0)


@dataclass(frozen=True)
class Proportion:
    """A part of so many independent trials, or F1, which is a monotone function of one (Jaccard's index)."""

    part: float
    size: float
    f1: bool

    @staticmethod
    def of(metric: str, column: Column, codes: Ints, count: int) -> Proportion:
        """From the rows of a column; `codes`: the group of each table row."""
        hits, inside = PROPORTIONS[metric](column.truth, column.decision)
        size = effective_size(hits, inside, codes[column.rows], count)
        return Proportion(float(hits[inside].mean()), size, metric == "f1")

    def limits(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's."""
        low, high = wilson(self.part, self.size, confidence)
        return (2 * low / (1 + low), 2 * high / (1 + high)) if self.f1 else (low, high)


def unbiased(column: Column) -> float:
    """Resamples of m cases vary by a factor of sqrt((m - 1) / m) too little: m of the rarer class, which rules here."""
    return float(np.sqrt(column.rarer / max(column.rarer - 1, 1)))


def mcc_doubt(column: Column) -> float:
    """Standard error that one claim more, right or wrong, would add to MCC: a single claim varies in no resample."""
    return float(0.5 / np.sqrt((column.rarer + 2) * (int(column.decision.sum()) + 1)))


def combined_limits(values: Floats, limits: Floats, signs: Floats, correlation: Floats) -> tuple[float, float]:
    """Limits of `signs @ values` from the limits [k, 2] of each value (MOVER: Zou and Donner 2008).

    Newcombe's (1998) interval of a difference of proportions is this with two values and signs -1 and 1. correlation
    [k, k]: of the estimates.
    """
    down = np.where(signs > 0, values - limits[:, 0], limits[:, 1] - values) * np.abs(signs)
    up = np.where(signs > 0, limits[:, 1] - values, values - limits[:, 0]) * np.abs(signs)
    moved = correlation * np.sign(signs)[:, None] * np.sign(signs)[None, :]
    middle = float(signs @ values)
    return middle - float(np.sqrt(max(down @ moved @ down, 0.0))), middle + float(np.sqrt(max(up @ moved @ up, 0.0)))


def correlations(draws: Floats) -> Floats:
    """Correlation [k, k] of replicates [r, k], each pair where both exist; 0 where one does not vary."""
    known = np.isfinite(draws)
    out = np.eye(draws.shape[1])
    for i in range(len(out)):
        for j in range(i):
            both = known[:, i] & known[:, j]
            first, second = draws[both, i], draws[both, j]
            if both.sum() >= 20 and first.std() > 1e-9 and second.std() > 1e-9:
                out[i, j] = out[j, i] = np.corrcoef(first, second)[0, 1]
    return out


CLAIMED = ("ppv", "npv")
"""Proportions of what a model says, of which there may be next to nothing."""

PROPORTIONS: dict[str, Callable[[Bools, Bools], tuple[Bools, Bools]]] = {
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
    design = np.column_stack([logit(np.clip(score, 1e-6, 1 - 1e-6)), np.ones(len(score))])
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
