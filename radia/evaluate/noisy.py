"""Candidate and model in use on a noisy test side of which some was re-read: three ways of estimating, side by side.

*given labels*: what `evaluate_candidate` says, taking them for true. *reads only*: the re-read studies alone, each with
weight 1 / sampling probability. *noise-aware*: all studies with radia/estimate.py. Values in, JSON-able values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radia import metrics
from radia.estimate import ESTIMATED, NoisySet, difference, estimate, mass_metrics, noisy_set, table
from radia.read_log import SIMULATED

if TYPE_CHECKING:
    import pandas as pd

REPLICATES = 300
"""Resamples of the re-read studies, for the limits of reads alone."""


def under_noise(
    given: pd.DataFrame,
    base: pd.DataFrame,
    candidate: pd.DataFrame,
    reads: pd.DataFrame,
    *,
    base_thresholds: Mapping[str, float],
    candidate_thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """What the reads make of two models: the `estimates` of an evaluation.

    given, base, candidate: study × findings, indexed by study; reads: as `radia.read_log.gold` gives them. Keys: base
    and candidate (the JSON of `radia evaluate --noisy`), comparison (`difference`: candidate minus base, noise-aware;
    `reads only`: base, candidate and difference), studies, read, simulated (the readers are none). Raises BiasedReads
    for reads that a model chose.
    """
    first = noisy_set(given, base, reads, thresholds=base_thresholds)
    second = noisy_set(given, candidate, reads, thresholds=candidate_thresholds)
    return {
        "base": table(estimate(first, seed=seed)),
        "candidate": table(estimate(second, seed=seed)),
        "comparison": {
            "difference": difference(first, second.scores, second.decisions, seed=seed),
            "reads only": reads_only(first, second, seed=seed),
        },
        "studies": len(given),
        "read": len(first.rows),
        "simulated": "source" in reads and bool((reads["source"] == SIMULATED).any()),
    }


def reads_only(base: NoisySet, candidate: NoisySet, *, seed: int = 0) -> dict[str, Any]:
    """Both models and their difference on the re-read studies, weighted by 1 / sampling probability (Hájek 1971).

    {"base" | "candidate" | "difference": {"findings": {F: {metric: interval}}, "means": {"all": {metric: interval}}}}.
    Limits: Student's t on the spread over resampled studies, narrower where most of them were read. Null where fewer
    than two reads of either kind make a metric guesswork.
    """
    rows = base.rows
    times = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), REPLICATES)
    times = np.vstack([np.ones(len(rows)), times])
    found = {name: _draws(noisy, rows, times) for name, noisy in (("base", base), ("candidate", candidate))}
    found["difference"] = {metric: found["candidate"][metric] - found["base"][metric] for metric in ESTIMATED}
    truth = base.truth[rows]
    rarer = np.minimum(np.nansum(truth == 1, axis=0), np.nansum(truth == 0, axis=0))
    left = np.sqrt(max(0.0, 1 - len(rows) / len(base.scores)))
    return {name: _told(draws, base.findings, rarer, left, gap=name == "difference") for name, draws in found.items()}


def _draws(noisy: NoisySet, rows: metrics.Ints, times: NDArray[Any]) -> dict[str, metrics.Floats]:
    """Each metric [1 + REPLICATES, f] of the read studies, the first row as they are."""
    out = {metric: np.full((len(times), len(noisy.findings)), np.nan) for metric in ESTIMATED}
    for f in range(len(noisy.findings)):
        truth = noisy.truth[rows, f]
        weight = times * np.where(np.isnan(truth), 0.0, 1 / noisy.sampling[rows])
        present = weight * np.nan_to_num(truth)
        values = mass_metrics(present, weight - present, noisy.scores[rows, f], noisy.decisions[rows, f])
        for metric in ESTIMATED:
            out[metric][:, f] = values[metric]
    return out


def _told(
    draws: Mapping[str, metrics.Floats], findings: tuple[str, ...], rarer: metrics.Floats, left: float, *, gap: bool
) -> dict[str, Any]:
    enough = rarer >= 2
    kept = np.flatnonzero(enough)
    return {
        "findings": {
            finding: {metric: _interval(draws[metric][:, f], rarer[f], left, metric, gap) for metric in ESTIMATED}
            for f, finding in enumerate(findings)
        },
        "means": {
            "all": {
                metric: {
                    **_interval(_mean(draws[metric][:, kept]), rarer[kept].sum(), left, metric, gap),
                    "over": len(kept),
                }
                for metric in ESTIMATED
            }
        },
    }


def _mean(draws: metrics.Floats) -> metrics.Floats:
    """Over findings; where a resample leaves a finding without a value, its value in the sample stands in."""
    if not draws.shape[1]:
        return np.full(len(draws), np.nan)
    return np.asarray(np.where(np.isfinite(draws), draws, draws[0]).mean(axis=1))


def _interval(draws: metrics.Floats, rarer: float, left: float, metric: str, gap: bool) -> dict[str, Any]:
    if rarer < 2 or not np.isfinite(draws[0]):
        return metrics.Interval(float("nan"), why="fewer than two reads of one kind").as_json()
    spread = metrics.deviation(draws[1:])
    if not gap:
        # Not surer than if one read more of the rarer kind could have come out anywhere (a uniform draw).
        spread = max(spread, 0.29 / (rarer + 1))
    half = left * metrics.t_quantile(rarer - 1) * spread
    low, high = (-1.0 if gap or metric == "mcc" else 0.0), 1.0
    value = float(draws[0])
    return metrics.Interval(value, max(low, value - half), min(high, value + half)).as_json()


def sentence(evaluation: Mapping[str, Any]) -> str:
    """What the reads support, in two or three sentences; and, without reads, that they support nothing."""
    estimates = evaluation.get("estimates") or {}
    naive = evaluation["models"]["candidate"]["means"]["all"]["auroc"]
    if not estimates:
        return (
            f"None of the {evaluation['n']:,} test images was read again. The figures here take the given labels for "
            "true: they say how far each model agrees with the labels, not how often it is right."
        )
    values = {model: estimates[model]["means"]["all"]["auroc"] for model in ("base", "candidate")}
    if any(value["value"] is None for value in values.values()):
        return f"{estimates['read']} of {estimates['studies']} test studies were read again: too few to say more."
    gain = estimates["comparison"]["difference"]["means"]["all"]["auroc"]
    known = "" if naive["value"] is None else f" The given labels alone would have said {naive['value']:.2f}."
    return (
        f"Mean AUROC of the candidate {metrics.shown(values['candidate'])}, of the model in use "
        f"{metrics.shown(values['base'])}, difference {metrics.shown(gain, signed=True)}: "
        f"{estimates['read']} of {estimates['studies']} test studies were read again, blind.{known}"
    )
