"""How often given labels are wrong, from blind reads with known sampling probabilities; and how far readers agree.

Two figures stand beside each other: *read*, from the re-read studies alone, each weighted by 1 / sampling probability
(limits: Korn & Graubard 1998, Clopper–Pearson at the effective sample size, studies as clusters); and *inferred*, which
also takes scores and given labels of unread studies (radia/estimate.py). Values in, JSON-able values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.agreement import agreement, cohen
from radia.estimate import NoisySet, noise_rates, noisy_set
from radia.findings import ABSENT, PRESENT, UNCERTAIN
from radia.metrics import Interval, t_quantile
from radia.read_log import AGAIN, READER

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
KINDS = ("wrong", "missed", "invented")
"""Over all given labels; given absent (or blank) among the truly present; read absent among the given present."""
RESAMPLES = 200


def label_noise(
    given: pd.DataFrame,
    scores: pd.DataFrame,
    reads: pd.DataFrame,
    *,
    groups: Mapping[str, Mapping[str, BoolArray]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Noise rates of all labels together, per finding, and per group.

    given, scores: study × findings, indexed by study; reads: as `radia.read_log.gold` gives them. groups: attribute ->
    value -> [n] studies, or [n, f] labels, that have it. Keys: studies, read, readers (studies by their number of
    readers), labels, findings {F: rates}, groups {attribute: {value: rates with `studies`}}; rates hold `reads`,
    `wrong`, `missed`, `invented`, `confusion` and, where the groups are of studies, `inferred`.
    Raises BiasedReads for reads that a model chose.
    """
    noisy = noisy_set(given, scores, reads)
    of_studies = {
        f"{attribute}\0{value}": inside
        for attribute, values in (groups or {}).items()
        for value, inside in values.items()
        if inside.ndim == 1
    }
    inferred = noise_rates(noisy, groups=of_studies, seed=seed)
    counts = noisy.readers[noisy.rows]
    known = counts[~np.isnan(counts)].astype(int)
    return {
        "studies": len(noisy.given),
        "read": len(noisy.rows),
        "readers": {str(number): int((known == number).sum()) for number in np.unique(known)},
        "labels": rates(noisy, np.ones(noisy.given.shape, dtype=bool)),
        "findings": {
            finding: rates(noisy, _only(noisy, f)) | {"inferred": _kinds(inferred["all"][finding])}
            for f, finding in enumerate(noisy.findings)
        },
        "groups": {
            attribute: {
                value: _group(noisy, inside, inferred.get(f"{attribute}\0{value}")) for value, inside in values.items()
            }
            for attribute, values in (groups or {}).items()
        },
    }


def rates(noisy: NoisySet, cells: BoolArray) -> dict[str, Any]:
    """The three rates among these cells [n, f] that were read, and the counts behind them."""
    read = cells & ~np.isnan(noisy.truth)
    sure = read & (noisy.given != UNCERTAIN)
    said, true = noisy.given == PRESENT, noisy.truth == PRESENT
    beyond = float(np.isfinite(noisy.truth[cells.any(axis=1)]).any(axis=1).mean()) if cells.any() else 0.0
    return {
        "reads": int(read.sum()),
        "wrong": weighted_rate(said != true, sure, noisy.sampling, beyond).as_json(),
        "missed": weighted_rate(~said, sure & true, noisy.sampling, beyond).as_json(),
        "invented": weighted_rate(~true, sure & said, noisy.sampling, beyond).as_json(),
        "confusion": _confusion(noisy.given, noisy.truth, read),
    }


def weighted_rate(hit: BoolArray, among: BoolArray, sampling: FloatArray, part_read: float = 0.0) -> Interval:
    """The share of hits among cells [n, f], each study weighted by 1 / its sampling probability [n].

    Korn & Graubard (Survey Methodology 24, 1998): the variance of the weighted ratio over studies gives an effective
    sample size, at which Clopper & Pearson's limits are taken. part_read: of all studies, for the finite population.
    """
    rows = np.flatnonzero(among.any(axis=1))
    if not len(rows):
        return Interval(float("nan"), why="nothing of this kind was read")
    weight = 1 / sampling[rows]
    size = weight * among[rows].sum(axis=1)
    hits = weight * (hit & among)[rows].sum(axis=1)
    rate = float(hits.sum() / size.sum())
    if part_read >= 1:
        return Interval(rate, rate, rate)
    studies = len(rows)
    variance = studies / max(studies - 1, 1) * float(np.square(hits - rate * size).sum()) / float(size.sum()) ** 2
    kish = float(size.sum()) ** 2 / float(np.square(size).sum())
    effective = rate * (1 - rate) / variance if variance > 0 and 0 < rate < 1 else kish
    effective = min(effective, float(among.sum())) / (1 - part_read)
    effective *= (t_quantile(1e9) / t_quantile(studies - 1)) ** 2
    return Interval(rate, *_clopper_pearson(rate * effective, effective))


def reader_agreement(log: pd.DataFrame) -> dict[str, Any]:
    """How far blind readers agree: per finding (Fleiss, Cohen), per pair of readers, and each with himself.

    Keys: findings (rows of radia/agreement.py), pairs and again (rows: first, second, studies, agreement, kappa, low,
    high; kappa is the mean over findings of Cohen's). An adjudicator's word is no independent read and is left out.
    """
    blind = log[~log["model_visible"].astype(bool) & log["value"].isin((PRESENT, ABSENT))]
    first, second = blind[blind["role"] == READER], blind[blind["role"] == AGAIN]
    findings = agreement(first) if len(first) else pd.DataFrame()
    people = sorted(first["reader"].unique())
    return {
        "findings": findings.astype(object).where(findings.notna(), None).to_dict("records"),
        "pairs": [
            {"first": one, "second": two, **_pair(first[first["reader"] == one], first[first["reader"] == two])}
            for one, two in combinations(people, 2)
        ],
        "again": [
            {"first": one, "second": one, **_pair(first[first["reader"] == one], second[second["reader"] == one])}
            for one in sorted(second["reader"].unique())
        ],
    }


def noisiest(noise: Mapping[str, Any], bound: float) -> list[str]:
    """The findings whose labels are surely wrong more often than the bound: by the lower limit."""
    return [
        finding
        for finding, entry in noise["findings"].items()
        if entry["wrong"]["low"] is not None and entry["wrong"]["low"] > bound
    ]


def overruled(given: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """The given labels that readers decided otherwise: study, finding, given, read, readers; findings in turn.

    given: study × findings; decided: the same with `readers`, both indexed by study. An uncertain label is not wrong.
    """
    studies, findings = given.index.intersection(decided.index), list(given.columns)
    said, read = given.loc[studies].to_numpy(np.float64), decided.loc[studies, findings].to_numpy(np.float64)
    differs = ~np.isnan(read) & (said != UNCERTAIN) & ((said == PRESENT) != (read == PRESENT))
    row, at = np.nonzero(differs)
    wrong = pd.DataFrame(
        {
            "study": studies.to_numpy()[row],
            "finding": np.array(findings, dtype=object)[at],
            "given": said[row, at],
            "read": read[row, at],
            "readers": decided.loc[studies, "readers"].to_numpy()[row],
        }
    )
    turn = wrong.groupby("finding").cumcount()
    return wrong.iloc[np.lexsort((at, turn.to_numpy()))].reset_index(drop=True)


# --- parts ----------------------------------------------------------------------------------------------------------


def _only(noisy: NoisySet, f: int) -> BoolArray:
    cells = np.zeros(noisy.given.shape, dtype=bool)
    cells[:, f] = True
    return cells


def _group(noisy: NoisySet, inside: BoolArray, inferred: Mapping[str, Any] | None) -> dict[str, Any]:
    cells = np.broadcast_to(inside[:, None], noisy.given.shape) if inside.ndim == 1 else inside
    out = {"studies": int(cells.any(axis=1).sum()), **rates(noisy, cells)}
    if inferred is not None:
        out["findings"] = {finding: _kinds(entry) for finding, entry in inferred.items()}
    return out


def _kinds(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: entry[kind] for kind in KINDS}


def _confusion(given: FloatArray, truth: FloatArray, read: BoolArray) -> dict[str, dict[str, int]]:
    """Counts of reads by what was given."""
    kinds = {
        "present": given == PRESENT,
        "absent": given == ABSENT,
        "uncertain": given == UNCERTAIN,
        "blank": np.isnan(given),
    }
    return {
        name: {
            "present": int((read & of & (truth == PRESENT)).sum()),
            "absent": int((read & of & (truth == ABSENT)).sum()),
        }
        for name, of in kinds.items()
    }


def _clopper_pearson(hits: float, size: float) -> tuple[float, float]:
    """Limits of a proportion, for counts that need not be whole."""
    from scipy.special import betaincinv

    low = 0.0 if hits <= 0 else float(betaincinv(hits, size - hits + 1, 0.025))
    high = 1.0 if hits >= size else float(betaincinv(hits + 1, size - hits, 0.975))
    return low, high


def _pair(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, Any]:
    """Agreement of two sets of reads on the cells that both hold; limits by resampling studies."""
    first, second = (read.pivot_table(index="id", columns="finding", values="value") for read in (one, two))
    studies, findings = first.index.intersection(second.index), first.columns.intersection(second.columns)
    a, b = (table.loc[studies, findings].to_numpy(dtype=np.float64) for table in (first, second))
    both = ~np.isnan(a) & ~np.isnan(b)
    if not both.any():
        return {"studies": 0, "agreement": None, "kappa": None, "low": None, "high": None}
    chance = np.random.default_rng(0)
    draws = [_mean_kappa(a[rows], b[rows]) for rows in chance.integers(0, len(a), (RESAMPLES, len(a)))]
    known = [draw for draw in draws if np.isfinite(draw)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (np.nan, np.nan)
    limits = Interval(_mean_kappa(a, b), float(low), float(high)).as_json()
    return {
        "studies": int(both.any(axis=1).sum()),
        "agreement": float((a == b)[both].mean()),
        "kappa": limits["value"],
        "low": limits["low"],
        "high": limits["high"],
    }


def _mean_kappa(a: FloatArray, b: FloatArray) -> float:
    kappas = [cohen(a[:, f], b[:, f]) for f in range(a.shape[1])]
    known = [kappa for kappa in kappas if np.isfinite(kappa)]
    return float(np.mean(known)) if known else float("nan")
