"""Two models on the same images: paired differences, Holm's correction, and subgroups without resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from radia.metrics.assess import Assessment, estimated, mean_limits, pooled_freedom, row_means
from radia.metrics.delong import auroc_influence, clustered_covariance, delong
from radia.metrics.intervals import (
    CLAIMED,
    CONFIDENCE,
    PROPORTIONS,
    Interval,
    Proportion,
    combined_limits,
    correlations,
    crossing,
    deviation,
    expit,
    logit,
    t_quantile,
    wilson,
)
from radia.metrics.points import METRICS, Floats, Ints
from radia.metrics.replicates import Column


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
                *(estimated(model, k, metric, model.columns[k]) for model in (base, candidate))
            )
            continue
        if metric in CLAIMED:
            out[metric] = _claimed_difference(base, candidate, metric, [k])
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
    if metric not in PROPORTIONS:
        return 0.0
    inside = (PROPORTIONS[metric](column.truth, column.decision)[1].sum() for column in (base, candidate))
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
        limits = (mean_limits(model, metric, kept, float("nan")) for model in (base, candidate))
        pair = (Interval(float(v), *edges) for v, edges in zip(both, limits, strict=True))
        return {**_ece_difference(*pair), "over": len(kept)}
    if metric in CLAIMED:
        return {**_claimed_difference(base, candidate, metric, kept), "over": len(kept)}
    value = float((candidate.values[metric][kept] - base.values[metric][kept]).mean())
    gap = candidate.draws.metrics[metric][:, kept] - base.draws.metrics[metric][:, kept]
    center = candidate.values[metric][kept] - base.values[metric][kept]
    spread = deviation(row_means(gap - center))
    freedom = pooled_freedom(gap - center, [base.columns[k] for k in kept])
    return {**_difference_json(value, spread, freedom), "over": len(kept)}


def _claimed_difference(base: Assessment, candidate: Assessment, metric: str, kept: Sequence[int]) -> dict[str, Any]:
    """The difference of PPV or NPV, or of its mean over findings `kept`, from the limits of each model.

    A model that calls a finding seldom has a PPV of a few claims, and other claims than the other model: resamples of a
    handful of claims show too little, Wilson's limits show what that handful is worth. p: where the limits pass 0.
    """
    value = float((candidate.values[metric][kept] - base.values[metric][kept]).mean())
    if not np.isfinite(value):
        return _difference_json(value, float("nan"), 1)
    if all(np.array_equal(base.columns[k].score, candidate.columns[k].score) for k in kept):
        return _difference_json(0.0, 0.0, 1)
    models = (base, candidate)
    related = correlations(np.concatenate([model.draws.metrics[metric][:, kept] for model in models], axis=1))
    signs = np.repeat([-1.0, 1.0], len(kept)) / len(kept)
    parts = [Proportion.of(metric, model.columns[k], model.codes, model.groups) for model in models for k in kept]
    values = np.array([part.part for part in parts])

    def edges(confidence: float) -> tuple[float, float]:
        return combined_limits(values, np.array([part.limits(confidence) for part in parts]), signs, related)

    low, high = edges(CONFIDENCE)
    return {**Interval(value, max(low, -1.0), min(high, 1.0)).as_json(), "p": _p_of(edges)}


def _p_of(edges: Callable[[float], tuple[float, float]]) -> float:
    """The two-sided p that limits imply: 1 less the confidence at which they just touch 0."""

    def apart(p: float) -> float:
        low, high = edges(1 - p)
        return 1.0 if low > 0 or high < 0 else -1.0

    return crossing(apart, 1e-6, 1.0)


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
    hits, inside = PROPORTIONS[metric](column.truth, column.decision)
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
    center = float(logit(np.array(value)))
    return expit(center - half), expit(center + half)
