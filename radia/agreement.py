"""How far readers agree with each other, and what that says of the truth behind their votes.

Reads are rows of study, finding, reader, value (radia/reads.py). One radiologist is not the truth: against the majority
of five, a single one moves an F1 by 0.05 to 0.125.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.findings import ABSENT, PRESENT

FloatArray = NDArray[np.float64]


def agreement(log: pd.DataFrame, *, replicates: int = 500, seed: int = 0) -> pd.DataFrame:
    """Per finding: studies read by two or more, raw agreement, Fleiss' kappa (low, high) and the mean of Cohen's kappa
    over pairs of readers (cohen_low, cohen_high), with 95% limits from a bootstrap over studies.

    Fleiss (1971), with any number of readers per study; Cohen (1960). NaN where all reads are alike.
    """
    rows = []
    for finding, wide in _votes(log):
        votes = wide.to_numpy(dtype=np.float64)
        votes = votes[(~np.isnan(votes)).sum(axis=1) >= 2]
        chance = np.random.default_rng(seed)
        drawn = [votes[chance.integers(0, len(votes), len(votes))] for _ in range(replicates if len(votes) else 0)]
        low, high = _limits([_fleiss(sample) for sample in drawn])
        cohen_low, cohen_high = _limits([_mean_cohen(sample) for sample in drawn])
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
                "cohen_low": cohen_low,
                "cohen_high": cohen_high,
            }
        )
    return pd.DataFrame(rows)


def _votes(log: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each finding's blind and decided reads, study × reader."""
    blind = log[~log["model_visible"].astype(bool) & log["value"].isin([PRESENT, ABSENT])]
    for finding, cells in blind.groupby("finding", sort=True):
        yield str(finding), cells.pivot_table(index="id", columns="reader", values="value", aggfunc="first")


def _limits(drawn: Sequence[float]) -> tuple[float, float]:
    known = [value for value in drawn if np.isfinite(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def cohen(first: FloatArray, second: FloatArray) -> float:
    """Cohen's kappa of two readers, [n] each, on the studies that both read. NaN where both use one value only."""
    both = ~np.isnan(first) & ~np.isnan(second)
    a, b = first[both], second[both]
    if not len(a):
        return float("nan")
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - expected) / (1 - expected)) if expected < 1 else float("nan")


LATENT_ASSUMPTIONS = (
    "There is one truth for each study and finding, which nobody saw.",
    "Readers err independently of each other once the truth is given; readers of one school who err alike look surer.",
    "A reader errs equally often on easy and on hard studies.",
    "Readers are right more often than wrong; with two readers the rates rest on this as much as on their votes.",
)
"""What the latent reader model takes for granted. Said wherever its figures are shown."""


@dataclass(frozen=True)
class LatentReaders:
    """Dawid & Skene (1979): P(present) [n] of each study, and each reader's sensitivity and specificity [k]."""

    present: FloatArray
    sensitivity: FloatArray
    specificity: FloatArray
    prevalence: float


def latent_readers(votes: FloatArray, *, iterations: int = 200) -> LatentReaders:
    """The readers' error rates and the truth behind their votes [n, k] (NaN: not read), by EM.

    Rests on LATENT_ASSUMPTIONS; the last of them is a prior of 4 right and 1 wrong for each rate.
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


def latent_truth(log: pd.DataFrame, *, replicates: int = 100, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The latent reader model of every finding: readers, and the truth that it infers instead of a majority.

    readers: finding, reader, studies, sensitivity and specificity (each with _low and _high: 95% limits, by bootstrap
    over studies). truth: id, finding, present (probability), readers. An option beside the majority and the
    adjudicator, resting on LATENT_ASSUMPTIONS. Only studies with two readers or more; blind reads only.
    """
    people, truths = [], []
    for finding, wide in _votes(log):
        wide = wide[wide.notna().sum(axis=1) >= 2]
        if wide.empty:
            continue
        votes, chance = wide.to_numpy(dtype=np.float64), np.random.default_rng(seed)
        found = latent_readers(votes)
        drawn = [latent_readers(votes[chance.integers(0, len(votes), len(votes))]) for _ in range(replicates)]
        for k, reader in enumerate(wide.columns):
            entry = {"finding": finding, "reader": reader, "studies": int((~np.isnan(votes[:, k])).sum())}
            for name in ("sensitivity", "specificity"):
                low, high = _limits([float(getattr(one, name)[k]) for one in drawn])
                entry |= {name: float(getattr(found, name)[k]), f"{name}_low": low, f"{name}_high": high}
            people.append(entry)
        truths.append(
            pd.DataFrame(
                {
                    "id": wide.index,
                    "finding": finding,
                    "present": found.present,
                    "readers": wide.notna().sum(axis=1).to_numpy(),
                }
            )
        )
    columns = ["id", "finding", "present", "readers"]
    return pd.DataFrame(people), pd.concat(truths, ignore_index=True) if truths else pd.DataFrame(columns=columns)


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
