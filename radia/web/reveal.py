"""What is shown once an answer is locked: the report's label, and what a model expected that never saw the patient.

Never asked for before the lock. The answer of the model in use, with its heat maps, is radia/web/reading.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN
from radia.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_KEYS = {PRESENT: "1", ABSENT: "0", UNCERTAIN: "U"}


@dataclass(frozen=True)
class Told:
    """One finding after the lock.

    answer, given: what the reader and the label say: `1`, `0`, `U`, `N` or empty. expected: the probability of being
    present by a model that was trained without this patient; None where there is none.
    """

    finding: str
    answer: str
    given: str
    expected: float | None

    @property
    def differs(self) -> bool:
        """Whether reader and label contradict each other."""
        return {self.answer, self.given} == {"0", "1"}


def told(site: Workspace, study: str, answers: Mapping[str, str]) -> list[Told]:
    """Every finding of a study, in their order."""
    given = _row(site.labels / "given.parquet", study)
    expected = _row(site.suspects / "probabilities.parquet", study)
    return [
        Told(finding, answers.get(finding, ""), _key(_number(given, finding)), _number(expected, finding))
        for finding in FINDINGS
    ]


def _key(value: float | None) -> str:
    return "" if value is None else _KEYS.get(value, "")


def _row(table: Path, study: str) -> pd.Series[float] | None:
    """The study's row of a table of findings."""
    import pandas as pd

    if not table.is_file():
        return None
    rows = pd.read_parquet(table, columns=list(FINDINGS), filters=[("study", "==", study)])
    return None if rows.empty else rows.iloc[0]


def _number(row: pd.Series[float] | None, finding: str) -> float | None:
    if row is None or row[finding] != row[finding]:
        return None
    return float(row[finding])
