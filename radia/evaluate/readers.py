"""Human readers beside a model on the same images: each, their mean and majority, their points in its ROC plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from radia import metrics

DECIDED = ("f1", "mcc", "sensitivity", "specificity", "ppv", "npv")
"""A reader gives decisions, no probabilities: only these exist."""

MAX_REPLICATES = 500
"""Resamples for the readers' points: curves are rebuilt in each, and a standard error needs no more."""


def compare_with_readers(
    truth: metrics.Floats,
    probs: metrics.Floats,
    decisions: ArrayLike,
    readers: Mapping[str, metrics.Floats],
    *,
    findings: Sequence[str],
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    seed: int = 0,
    min_positives: int = 3,
) -> dict[str, Any]:
    """Readers' metrics in the form of `radia evaluate`, and the model's sensitivity at each reader's specificity.

    truth, probs, decisions [n, f]; readers: [n, f] of 1, 0 and NaN (not read). Keys: each {name: table}, mean (over the
    readers), majority (present where more than half of those who read say so), model (on the same rows), above {F:
    {name: {"sensitivity": the model's at the reader's specificity, "difference": to the reader's with limits}}}.
    """
    assess = _assessor(findings, groups, replicates, seed, min_positives)
    each = {name: assess(np.where(np.isnan(calls), np.nan, truth), calls == 1) for name, calls in readers.items()}
    votes = np.array(list(readers.values()))
    read = (~np.isnan(votes)).sum(axis=0)
    majority = 2 * np.nansum(votes, axis=0) > read
    seen = np.where(read > 0, truth, np.nan)
    codes, count = metrics.group_codes(groups, len(truth))
    return {
        "each": {name: _decided(metrics.table_of(reader)) for name, reader in each.items()},
        "mean": average(list(each.values())),
        "majority": _decided(metrics.table_of(assess(seen, majority))),
        "model": _decided(metrics.table_of(assess(seen, np.asarray(decisions) > 0))),
        "above": {
            finding: {
                name: _above(seen[:, k], probs[:, k], calls[:, k], codes, count, min(replicates, MAX_REPLICATES), seed)
                for name, calls in readers.items()
            }
            for k, finding in enumerate(findings)
        },
    }


def _assessor(
    findings: Sequence[str], groups: ArrayLike | None, replicates: int, seed: int, min_positives: int
) -> Callable[[metrics.Floats, metrics.Bools], metrics.Assessment]:
    """`metrics.assess` for decisions alone, always on the same resamples."""

    def assess(truth: metrics.Floats, decisions: metrics.Bools) -> metrics.Assessment:
        return metrics.assess(
            truth,
            decisions.astype(np.float64),
            findings=findings,
            decisions=decisions,
            groups=groups,
            replicates=replicates,
            seed=seed,
            min_positives=min_positives,
        )

    return assess


def average(readers: Sequence[metrics.Assessment]) -> dict[str, Any]:
    """The mean over readers of each metric, by finding and for the means over findings, with limits."""
    first = readers[0]
    return {
        "readers": len(readers),
        "findings": {
            finding: {metric: _mean_json(readers, metric, [k]) for metric in DECIDED}
            for k, finding in enumerate(first.findings)
        },
        "means": {
            pool: {metric: _mean_json(readers, metric, _kept(readers, pool, metric)) for metric in DECIDED}
            for pool in first.pools
        },
    }


def _kept(readers: Sequence[metrics.Assessment], pool: str, metric: str) -> list[int]:
    """The findings that can be averaged for every reader."""
    return [k for k in readers[0].averaged(pool, metric) if all(k in r.averaged(pool, metric) for r in readers)]


def _mean_json(readers: Sequence[metrics.Assessment], metric: str, kept: list[int]) -> dict[str, Any]:
    values = np.array([reader.values[metric][kept] for reader in readers])
    if not values.size or not np.isfinite(values).all():
        why = "it does not exist for every reader"
        return {**metrics.Interval(float("nan"), why=why).as_json(), "over": len(kept)}
    draws = np.array([reader.draws.metrics[metric][:, kept] for reader in readers])
    deviations = metrics.row_means((draws - values[:, None, :]).transpose(1, 0, 2).reshape(draws.shape[1], -1))
    freedom = float(sum(readers[0].columns[k].rarer for k in kept) - 1)
    value = float(values.mean())
    half = metrics.t_quantile(freedom) * metrics.deviation(deviations)
    floor = -1.0 if metric == "mcc" else 0.0
    interval = metrics.Interval(value, max(value - half, floor), min(value + half, 1.0))
    return {**interval.as_json(), "over": len(kept)}


def _decided(table: dict[str, Any]) -> dict[str, Any]:
    """A table without the metrics that need probabilities."""
    described = ("n", "positives", "prevalence", "why")
    return {
        "findings": {
            finding: {key: value for key, value in entry.items() if key in (*described, *DECIDED)}
            for finding, entry in table["findings"].items()
        },
        "means": {pool: {metric: entry[metric] for metric in DECIDED} for pool, entry in table["means"].items()},
    }


# --- the readers' points in the ROC plot ----------------------------------------------------------------------------


def _above(
    truth: metrics.Floats,
    score: metrics.Floats,
    calls: metrics.Floats,
    codes: metrics.Ints,
    count: int,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """The model's sensitivity at the reader's specificity, minus the reader's own, with 95% limits by patient."""
    rows = np.flatnonzero(~np.isnan(truth) & ~np.isnan(calls))
    positive, said = truth[rows] > 0, calls[rows] > 0
    if not positive.any() or positive.all():
        missing = metrics.Interval(float("nan"), why="one class only").as_json()
        return {"sensitivity": None, "difference": missing}
    gap = _sensitivity_gap(positive, score[rows], said)
    whole = np.ones((1, len(rows)), np.uint8)
    value, sensitivity = (float(part[0]) for part in gap(whole))
    draws = np.concatenate([gap(w[:, rows])[0] for w in metrics.resample(codes, count, replicates, seed)])
    spread = np.hypot(metrics.deviation(draws), 1 / (positive.sum() + 2))  # as one opposite pair more would add
    half = metrics.t_quantile(min(positive.sum(), (~positive).sum()) - 1) * spread
    interval = metrics.Interval(value, max(value - half, -1.0), min(value + half, 1.0))
    return {"sensitivity": sensitivity, "difference": interval.as_json()}


def _sensitivity_gap(
    positive: metrics.Bools, score: metrics.Floats, said: metrics.Bools
) -> Callable[[Any], tuple[metrics.Floats, metrics.Floats]]:
    """A function from weights [r, n] to the difference of sensitivities and the model's sensitivity, each [r]."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # a threshold admits all of a tie or none

    def gap(weights: Any) -> tuple[metrics.Floats, metrics.Floats]:
        # A resample without positives gives NaN, which the standard error leaves out.
        hits, false = (_admitted(weights * part, order, last) for part in (positive, ~positive))
        found = np.where(hits[:, -1] > 0, hits[:, -1], np.nan)
        own = (weights * (positive & said)).sum(axis=1) / found
        allowed = (weights * (~positive & said)).sum(axis=1)  # the reader's false alarms
        at = (false <= allowed[:, None]).sum(axis=1) - 1
        after, each = np.minimum(at + 1, false.shape[1] - 1), np.arange(len(at))
        step = false[each, after] - false[each, at]
        part = np.divide(allowed - false[each, at], step, out=np.zeros(len(at)), where=step > 0)
        model = (hits[each, at] + part * (hits[each, after] - hits[each, at])) / found
        return model - own, model

    return gap


def _admitted(weights: Any, order: metrics.Ints, last: metrics.Ints) -> metrics.Floats:
    """Weight at or above each threshold from the highest down, [r, thresholds + 1]; the first admits nothing."""
    total = np.cumsum(weights[:, order], axis=1, dtype=np.float64)[:, last]
    return np.concatenate([np.zeros((len(weights), 1)), total], axis=1)
