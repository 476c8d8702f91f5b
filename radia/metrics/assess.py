"""One model on one set of rows: every metric of every finding, of means over findings and of all cells together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from radia.findings import COMPETITION_5
from radia.metrics.intervals import (
    CLAIMED,
    Interval,
    Proportion,
    combined_limits,
    correlations,
    deviation,
    ece_limits,
    expit,
    limits_of,
    logit,
    mcc_doubt,
    recalibration,
    t_quantile,
    unbiased,
    wilson,
)
from radia.metrics.points import METRICS, Bools, Floats, Ints, group_codes
from radia.metrics.replicates import Column, Draws, bootstrap, pool_columns

NAMED_SETS: dict[str, tuple[str, ...]] = {"competition-5": COMPETITION_5}


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
        **{metric: estimated(model, k, metric, column).as_json() for metric in METRICS},
        "calibration_slope": slope.as_json(),
        "calibration_intercept": intercept.as_json(),
    }


def estimated(model: Assessment, k: int, metric: str, column: Column) -> Interval:
    """A finding's metric with its limits; without, and with a `why`, where it cannot be computed."""
    value = float(model.values[metric][k])
    if not np.isfinite(value):
        return Interval(value, why=_missing(metric, column))
    if metric == "mcc" and len(np.unique(column.decision)) == 1:
        return Interval(value, why="every decision is the same")
    if metric == "ece":
        low, high = ece_limits(column.gaps()[None], model.draws.gaps[:, [k]])
    else:
        low, high = limits_of(metric, value, model.draws.metrics[metric][:, k], column, model.codes, model.groups)
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
    low, high = mean_limits(model, metric, kept, value)
    return {**Interval(value, low, high, f"without {', '.join(left)}" if left else None).as_json(), "over": len(kept)}


def mean_limits(model: Assessment, metric: str, kept: list[int], value: float) -> tuple[float, float]:
    """95% limits of a metric's mean over the findings `kept`."""
    if metric == "ece":
        return ece_limits(np.array([model.columns[k].gaps() for k in kept]), model.draws.gaps[:, kept])
    columns = [model.columns[k] for k in kept]
    if metric in CLAIMED:
        limits = [Proportion.of(metric, column, model.codes, model.groups).limits() for column in columns]
        signs, related = np.full(len(kept), 1 / len(kept)), correlations(model.draws.metrics[metric][:, kept])
        low, high = combined_limits(model.values[metric][kept], np.array(limits), signs, related)
        return max(low, 0.0), min(high, 1.0)
    deviations = model.draws.metrics[metric][:, kept] - model.values[metric][kept]
    if metric in ("auroc", "auprc", "mcc"):
        deviations = deviations * np.array([unbiased(column) for column in columns])
    moved = row_means(deviations)
    spread = deviation(moved)
    if metric == "mcc":
        spread = float(np.hypot(spread, np.sqrt(sum(mcc_doubt(column) ** 2 for column in columns)) / len(kept)))
    half = t_quantile(pooled_freedom(deviations, columns)) * spread
    if metric == "mcc":
        return max(value - half, -1.0), min(value + half, 1.0)
    if not 0 < value < 1:
        return wilson(value, sum(max(model.columns[k].rarer, 1) for k in kept))
    # Small biases of single findings (AUPRC: upwards) add up in a mean; the replicates show how large they are.
    center = float(logit(np.clip(value - np.nanmean(moved), 1e-6, 1 - 1e-6)))
    half /= value * (1 - value)
    return expit(center - half), expit(center + half)


def pooled_freedom(deviations: Floats, columns: Sequence[Column]) -> float:
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
    return estimated(model, position, metric, pool_columns([model.columns[k] for k in model.pools[pool]]))


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
