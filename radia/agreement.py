"""How far readers agree with each other, and what that says of the truth behind their votes.

Reads are rows of study, finding, reader, value (radia/reads.py). One radiologist is not the truth: against the majority
of five, a single one moves an F1 by 0.05 to 0.125.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.findings import ABSENT, PRESENT

FloatArray = NDArray[np.float64]


def agreement(log: pd.DataFrame, *, replicates: int = 500, seed: int = 0) -> pd.DataFrame:
    """Per finding: studies read by two or more, raw agreement, Fleiss' kappa with 95% limits (bootstrap over studies),
    and the mean of Cohen's kappa over pairs of readers.

    Fleiss (1971), with any number of readers per study; Cohen (1960).
    """
    blind = log[~log["model_visible"].astype(bool) & log["value"].isin([PRESENT, ABSENT])]
    rows = []
    for finding, cells in blind.groupby("finding", sort=True):
        wide = cells.pivot_table(index="id", columns="reader", values="value", aggfunc="first")
        votes = wide.to_numpy(dtype=np.float64)
        votes = votes[(~np.isnan(votes)).sum(axis=1) >= 2]
        chance = np.random.default_rng(seed)
        drawn = [
            _fleiss(votes[chance.integers(0, len(votes), len(votes))]) for _ in range(replicates if len(votes) else 0)
        ]
        known = [value for value in drawn if np.isfinite(value)]
        low, high = np.quantile(known, [0.025, 0.975]) if known else (np.nan, np.nan)
        rows.append(
            {
                "finding": finding,
                "studies": len(votes),
                "readers": wide.shape[1],
                "agreement": _raw_agreement(votes),
                "fleiss": _fleiss(votes),
                "low": low,
                "high": high,
                "cohen": _mean_cohen(votes),
            }
        )
    return pd.DataFrame(rows)


def cohen(first: FloatArray, second: FloatArray) -> float:
    """Cohen's kappa of two readers, [n] each, on the studies that both read. NaN where both use one value only."""
    both = ~np.isnan(first) & ~np.isnan(second)
    a, b = first[both], second[both]
    if not len(a):
        return float("nan")
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - expected) / (1 - expected)) if expected < 1 else float("nan")


@dataclass(frozen=True)
class LatentReaders:
    """Dawid & Skene (1979): P(present) [n] of each study, and each reader's sensitivity and specificity [k]."""

    present: FloatArray
    sensitivity: FloatArray
    specificity: FloatArray
    prevalence: float


def latent_readers(votes: FloatArray, *, iterations: int = 200) -> LatentReaders:
    """The readers' error rates and the truth behind their votes [n, k] (NaN: not read), by EM.

    Assumes that readers err independently given the truth, equally on easy and hard studies, and that they are right
    more often than wrong; with two readers the error rates rest on the prior (4 right, 1 wrong) as much as on votes.
    """
    seen = ~np.isnan(votes)
    yes, no = np.where(seen, votes, 0.0), np.where(seen, 1 - votes, 0.0)
    present = (yes.sum(axis=1) + 0.5) / (seen.sum(axis=1) + 1.0)
    for _ in range(iterations):
        sensitivity = (present @ yes + 4) / (present @ seen + 5)
        specificity = ((1 - present) @ no + 4) / ((1 - present) @ seen + 5)
        prevalence = float((present.sum() + 1) / (len(present) + 2))
        odds = np.log(prevalence / (1 - prevalence))
        odds = odds + yes @ np.log(sensitivity / (1 - specificity)) + no @ np.log((1 - sensitivity) / specificity)
        updated = 1 / (1 + np.exp(-odds))
        change, present = float(np.abs(updated - present).max()), updated
        if change < 1e-7:
            break
    return LatentReaders(present, sensitivity, specificity, prevalence)


def _raw_agreement(votes: FloatArray) -> float:
    """Mean over studies of the part of reader pairs that agree."""
    if not len(votes):
        return float("nan")
    readers, yes = (~np.isnan(votes)).sum(axis=1), np.nansum(votes, axis=1)
    agreeing = yes * (yes - 1) + (readers - yes) * (readers - yes - 1)
    return float((agreeing / (readers * (readers - 1))).mean())


def _fleiss(votes: FloatArray) -> float:
    if not len(votes):
        return float("nan")
    rate = float(np.nansum(votes) / (~np.isnan(votes)).sum())
    expected = rate**2 + (1 - rate) ** 2
    return (_raw_agreement(votes) - expected) / (1 - expected) if expected < 1 else float("nan")


def _mean_cohen(votes: FloatArray) -> float:
    kappas = [
        cohen(votes[:, one], votes[:, two]) for one in range(votes.shape[1]) for two in range(one + 1, votes.shape[1])
    ]
    known = [kappa for kappa in kappas if np.isfinite(kappa)]
    return float(np.mean(known)) if known else float("nan")
