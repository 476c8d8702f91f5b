"""How far two sets of labels of the same studies agree, per finding, and which findings are fit for training.

Made for the check that comes before local labels are trusted: some 300 reports labelled by the rules and by a person.
Two readers' blind reads of images are another matter (radia/agreement.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia import digests
from radia.agreement import cohen
from radia.errors import LabelError, UnmatchedIds
from radia.findings import PRESENT
from radia.metrics import Interval, shown, wilson
from radia.tables import by_id, common_findings, label_values, read_table

FloatArray = NDArray[np.float64]

KAPPA, F1 = "kappa", "f1"
_DRAWS = 4000
_CELL_PRIOR = 0.25
"""Pseudo-counts of each of the four cells (Perks 1947). By simulation with 100 and 300 studies, prevalences from 0.03
to 0.3 and kappas from 0.86 to 0.97 the limits hold in 94.7 to 97.3% of trials; the bootstrap's hold in 15 to 94%."""


@dataclass(frozen=True)
class FindingAgreement:
    """One finding in two sets of labels, present (1) against everything else.

    both, first_only, second_only, neither: studies. same: part of the studies whose labels (1, 0, -1, blank) are equal.
    kappa, f1: Cohen's, and the harmonic mean of the two ways to count a hit.
    """

    finding: str
    both: int
    first_only: int
    second_only: int
    neither: int
    same: float
    kappa: Interval
    f1: Interval
    bars: Mapping[str, float]

    @property
    def studies(self) -> int:
        """Studies that count for this finding."""
        return self.both + self.first_only + self.second_only + self.neither

    def as_json(self) -> dict[str, Any]:
        """Counts, metrics and bars."""
        return {
            "studies": self.studies,
            "both": self.both,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "neither": self.neither,
            "same": self.same if np.isfinite(self.same) else None,
            KAPPA: self.kappa.as_json(),
            F1: self.f1.as_json(),
            "bars": dict(self.bars),
        }


def label_agreement(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    bars: Mapping[str, float] | None = None,
    bars_by_finding: Mapping[str, Mapping[str, float]] | None = None,
    blank: Literal["absent", "unread"] = "absent",
    seed: int = 0,
) -> list[FindingAgreement]:
    """Agreement of two tables (ids, and findings as 1, 0, -1, blank) on the ids and the findings that both have.

    bars: metric -> the least value, for every finding; bars_by_finding overrides it. blank: a blank cell says that the
    finding is not there, as in a report that does not name it, or ('unread') that nobody looked: the study does not
    count for the finding then. Limits of F1: Wilson's of TP / (TP + FP + FN), of which it is a monotone function; of
    kappa: a Dirichlet posterior of the four cells. Raises LabelError, UnmatchedIds where no id is in both.
    """
    a, b = by_id(first, name="the first table"), by_id(second, name="the second table")
    ids = a.index[a.index.isin(b.index)]
    if not len(ids):
        raise UnmatchedIds(f"none of the {len(a)} ids of the first table is among the {len(b)} of the second")
    findings = common_findings(a, b)
    one, two = (label_values(table.loc[ids], findings, name=name) for table, name in ((a, "first"), (b, "second")))
    _check_bars(bars or {}, bars_by_finding or {}, findings)
    chance = np.random.default_rng(seed)
    return [
        _of_finding(
            finding,
            one[:, f],
            two[:, f],
            bars={**(bars or {}), **(bars_by_finding or {}).get(finding, {})},
            unread=blank == "unread",
            chance=chance,
        )
        for f, finding in enumerate(findings)
    ]


def reasons_against(findings: Mapping[str, Any], bars: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Each finding of `bars` that is under one, and in words why. findings: as `summary` gives them."""
    against = {finding: _shortfalls(findings.get(finding), wanted) for finding, wanted in bars.items()}
    return {finding: why for finding, why in against.items() if why}


def summary(agreements: Sequence[FindingAgreement]) -> dict[str, Any]:
    """`findings` by name, `under_bar`, and the means of kappa and F1 over the findings that have them."""
    found = {item.finding: item.as_json() for item in agreements}
    return {
        "findings": found,
        "under_bar": reasons_against(found, {item.finding: item.bars for item in agreements}),
        "mean": {
            KAPPA: _mean([item.kappa.value for item in agreements]),
            F1: _mean([item.f1.value for item in agreements]),
        },
    }


def agreement_of_files(
    first: Path,
    second: Path,
    *,
    bars: Mapping[str, float],
    bars_by_finding: Mapping[str, Mapping[str, float]],
    unread: bool = False,
) -> dict[str, Any]:
    """`summary` of two CSV files, with `studies`, what the files and the report rules were (`first`, `second`, `rules`:
    digests), and what a blank said."""
    from radia.reports import rules_digest

    a, b = read_table(first), read_table(second)
    blank: Literal["absent", "unread"] = "unread" if unread else "absent"
    found = label_agreement(a, b, bars=bars, bars_by_finding=bars_by_finding, blank=blank)
    return {
        "studies": int(a.index.isin(b.index).sum()),
        "blank": blank,
        "first": digests.of_file(first),
        "second": digests.of_file(second),
        "rules": rules_digest(),
        **summary(found),
    }


def told_agreement(result: Mapping[str, Any]) -> str:
    """A line a finding, for a person."""
    lines = [f"{result['studies']} studies in both"]
    for finding, item in result["findings"].items():
        under = result["under_bar"].get(finding)
        line = f"{finding}: kappa {shown(item[KAPPA])}, F1 {shown(item[F1])}, present {item['both']} both"
        line += f" + {item['first_only']} first + {item['second_only']} second"
        lines.append(f"{line}; UNDER THE BAR: {under}" if under else line)
    return "\n".join(lines)


def _of_finding(
    finding: str,
    one: FloatArray,
    two: FloatArray,
    *,
    bars: Mapping[str, float],
    unread: bool,
    chance: np.random.Generator,
) -> FindingAgreement:
    if unread:
        kept = ~np.isnan(one) & ~np.isnan(two)
        one, two = one[kept], two[kept]
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    a, b = one == PRESENT, two == PRESENT
    both, first_only, second_only, neither = (int(s.sum()) for s in (a & b, a & ~b, ~a & b, ~a & ~b))
    cells = np.array([both, first_only, second_only, neither])
    return FindingAgreement(
        finding,
        both,
        first_only,
        second_only,
        neither,
        same=float(same.mean()) if len(same) else float("nan"),
        kappa=_kappa(cells, cohen(a.astype(np.float64), b.astype(np.float64)), chance),
        f1=_f1(cells),
        bars=bars,
    )


def _kappa(cells: NDArray[np.int64], value: float, chance: np.random.Generator) -> Interval:
    if not np.isfinite(value):
        return Interval(float("nan"), why="no study differs from another" if cells.sum() else "no study is in both")
    p = chance.dirichlet(cells + _CELL_PRIOR, size=_DRAWS)
    first, second = p[:, 0] + p[:, 1], p[:, 0] + p[:, 2]
    expected = first * second + (1 - first) * (1 - second)
    low, high = np.quantile((p[:, 0] + p[:, 3] - expected) / (1 - expected), [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def _f1(cells: NDArray[np.int64]) -> Interval:
    both, size = int(cells[0]), int(cells[:3].sum())
    if not size:
        return Interval(float("nan"), why="present in no study of either")
    value, low, high = (2 * share / (1 + share) for share in (both / size, *wilson(both / size, size)))
    return Interval(value, low, high)


def _shortfalls(found: Mapping[str, Any] | None, bars: Mapping[str, float]) -> str:
    """A metric that cannot be computed reaches no bar but 0."""
    told = []
    for metric, bar in bars.items():
        interval: Mapping[str, Any] = found[metric] if found else {"value": None, "why": "it was not compared"}
        if interval["value"] is None and bar > 0:
            told.append(f"{metric} cannot be shown ({interval.get('why')}), bar {bar:g}")
        elif interval["value"] is not None and interval["value"] < bar:
            told.append(f"{metric} {shown(interval)}, bar {bar:g}")
    return ", ".join(told)


def _check_bars(
    bars: Mapping[str, float], by_finding: Mapping[str, Mapping[str, float]], findings: Sequence[str]
) -> None:
    for finding in by_finding:
        if finding not in findings:
            raise LabelError(f"a bar for {finding!r}, which is not a finding of both tables")
    for metric, bar in [pair for some in (bars, *by_finding.values()) for pair in some.items()]:
        if metric not in (KAPPA, F1) or not 0 <= bar <= 1:
            raise LabelError(f"bar {metric}={bar:g}: expected {KAPPA} or {F1} and a value between 0 and 1")


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
