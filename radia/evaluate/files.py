"""`radia evaluate` on CSV files: reading, alignment by id and by finding, and refusal of what cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radia import metrics
from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.evaluate.readers import compare_with_readers
from radia.findings import FINDINGS, UNCERTAIN
from radia.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

PATIENT_COLUMNS = ("patient", "patientid")
"""Names (letters only, lower case) under which a table of truth may say whose image a row is."""


@dataclass(frozen=True)
class AlignedFiles:
    """Tables over the same ids and findings, in the order of the truth's rows and columns."""

    ids: pd.Index
    findings: tuple[str, ...]
    truth: metrics.Floats
    probs: metrics.Floats
    decisions: metrics.Bools
    patients: pd.Series | None


def evaluate_files(
    *,
    truth: Path,
    probs: Path,
    thresholds: Path | None = None,
    decisions: Path | None = None,
    patients: Path | None = None,
    readers: Path | None = None,
    seed: int = 0,
    replicates: int = 1000,
    min_positives: int = 3,
) -> dict[str, Any]:
    """The JSON of `radia evaluate` (DESIGN.md, Contracts) for tables whose first column is the id.

    Findings are the columns common to the files. Truth is 1, 0, or -1 / blank (left out). Rows of one patient are
    drawn together: the patient is `id,patient` of the file `patients`, or a column Patient ID of the truth, or else
    each id is its own. readers: a folder with one CSV of decisions a reader, whose findings are the columns that every
    reader shares; the result then has "readers" (see radia/evaluate/readers.py).
    Raises BadLabelValue, UnknownFinding, UnmatchedIds, LabelError.
    """
    files = align(truth=truth, probs=probs, thresholds=thresholds, decisions=decisions, patients=patients)
    groups = None if files.patients is None else files.patients.to_numpy()
    chance = {"replicates": replicates, "seed": seed, "min_positives": min_positives}
    model = metrics.assess(
        files.truth, files.probs, findings=files.findings, decisions=files.decisions, groups=groups, **chance
    )
    result = metrics.table_of(model)
    if readers is not None:
        calls, findings = read_readers(readers, files)
        columns = [files.findings.index(finding) for finding in findings]
        result["readers"] = compare_with_readers(
            files.truth[:, columns],
            files.probs[:, columns],
            files.decisions[:, columns],
            calls,
            findings=findings,
            groups=groups,
            **chance,
        )
    return result


def align(
    *,
    truth: Path,
    probs: Path,
    thresholds: Path | None = None,
    decisions: Path | None = None,
    patients: Path | None = None,
) -> AlignedFiles:
    """Reads the files and puts them on the ids and findings of the truth. Raises as `evaluate_files`."""
    if thresholds is not None and decisions is not None:
        raise LabelError("thresholds and decisions were both given: the decisions would leave the thresholds unused")
    true_table, scores = read_table(truth), read_table(probs)
    decided = None if decisions is None else read_table(decisions)
    others = [scores] if decided is None else [scores, decided]
    findings = tuple(name for name in true_table.columns if all(name in table.columns for table in others))
    if not findings:
        raise LabelError(f"{truth.name} and {probs.name} have no finding in common: compare the names of their columns")
    ids = true_table.index
    probabilities = probability_matrix(_rows(scores, ids, probs), findings, probs.name)
    if decided is not None and decisions is not None:
        calls = decision_matrix(_rows(decided, ids, decisions), findings, decisions.name)
    else:
        limits = {} if thresholds is None else read_thresholds(thresholds, known=(*findings, *scores.columns))
        calls = np.asarray(probabilities >= np.array([limits.get(finding, 0.5) for finding in findings]))
    return AlignedFiles(
        ids=ids,
        findings=findings,
        truth=truth_matrix(true_table, findings, truth.name),
        probs=probabilities,
        decisions=calls,
        patients=_patients(true_table, ids, patients),
    )


def truth_matrix(table: pd.DataFrame, findings: tuple[str, ...], name: str) -> metrics.Floats:
    """1, 0 and NaN (uncertain or blank) as [n, f]. Raises BadLabelValue."""
    values = _numbers(table, findings, name, "1, 0, -1 or blank")
    allowed = np.isnan(values) | np.isin(values, (0.0, 1.0, UNCERTAIN))
    _refuse(~allowed, findings, name, "1, 0, -1 or blank")
    values[values == UNCERTAIN] = np.nan
    return values


def probability_matrix(table: pd.DataFrame, findings: tuple[str, ...], name: str) -> metrics.Floats:
    """Probabilities as [n, f]. Raises BadLabelValue for a blank one and for one outside [0, 1]."""
    values = _numbers(table, findings, name, "a probability in [0, 1]")
    _refuse(~((values >= 0) & (values <= 1)), findings, name, "a probability in [0, 1]")
    return values


def decision_matrix(table: pd.DataFrame, findings: tuple[str, ...], name: str) -> metrics.Bools:
    """Decisions as booleans [n, f]. Raises BadLabelValue for anything but 1 and 0."""
    values = _numbers(table, findings, name, "1 or 0")
    _refuse(~np.isin(values, (0.0, 1.0)), findings, name, "1 or 0")
    return np.asarray(values > 0)


def read_readers(folder: Path, files: AlignedFiles) -> tuple[dict[str, metrics.Floats], tuple[str, ...]]:
    """Each reader's decisions [n, f] (NaN: not read) by the name of the file, and the findings that all of them read.

    Raises LabelError without any CSV or common finding, UnmatchedIds, BadLabelValue.
    """
    tables = {path.stem: (path, read_table(path)) for path in sorted(folder.glob("*.csv"))}
    findings = tuple(f for f in files.findings if all(f in table.columns for _, table in tables.values()))
    if not tables or not findings:
        raise LabelError(
            f"{folder.name}/ has no CSV of a reader with a finding of the truth: expected one file a reader"
        )
    calls = {}
    for name, (path, table) in tables.items():
        calls[name] = reader_matrix(_rows(table, files.ids, path), findings, path.name)
    return calls, findings


def reader_matrix(table: pd.DataFrame, findings: tuple[str, ...], name: str) -> metrics.Floats:
    """A reader's decisions as 1, 0 and NaN (not read), [n, f]; a finding without a column was not read.

    Raises BadLabelValue for anything else.
    """
    read = tuple(finding for finding in findings if finding in table.columns)
    values = _numbers(table, read, name, "1, 0 or blank")
    _refuse(~(np.isnan(values) | np.isin(values, (0.0, 1.0))), read, name, "1, 0 or blank")
    calls = np.full((len(table), len(findings)), np.nan)
    calls[:, [findings.index(finding) for finding in read]] = values
    return calls


def read_thresholds(path: Path, *, known: tuple[str, ...]) -> dict[str, float]:
    """`finding,threshold` as a dictionary. Raises UnknownFinding, BadLabelValue, LabelError."""
    table = read_table(path)
    if "threshold" not in table.columns:
        raise LabelError(f"{path.name} has no column 'threshold': expected finding,threshold")
    for finding in table.index:
        if finding not in known and finding not in FINDINGS:
            raise UnknownFinding(finding, known)
    values = probability_matrix(table, ("threshold",), path.name)[:, 0]
    return dict(zip(table.index, map(float, values), strict=True))


def _numbers(table: pd.DataFrame, findings: tuple[str, ...], name: str, expected: str) -> metrics.Floats:
    try:
        return table[list(findings)].to_numpy(dtype=np.float64, copy=True)
    except (TypeError, ValueError) as error:
        text = [f for f in findings if table[f].dtype == object]
        raise BadLabelValue(f"{name}: text under {', '.join(text)}; expected {expected}") from error


def _refuse(bad: metrics.Bools, findings: tuple[str, ...], name: str, expected: str) -> None:
    if bad.any():
        columns = [finding for k, finding in enumerate(findings) if bad[:, k].any()]
        raise BadLabelValue(
            f"{name}: {int(bad.sum())} values under {', '.join(columns)}; expected {expected} everywhere"
        )


def _rows(table: pd.DataFrame, ids: pd.Index, path: Path) -> pd.DataFrame:
    """The table in the order of `ids`. Raises UnmatchedIds unless both have the same ones."""
    missing, extra = len(ids.difference(table.index)), len(table.index.difference(ids))
    if missing or extra:
        raise UnmatchedIds(
            f"{path.name}: {missing} ids of the truth are missing and {extra} are not in the truth; "
            "both files must name the same ids"
        )
    return table.loc[ids]


def _patients(truth: pd.DataFrame, ids: pd.Index, path: Path | None) -> pd.Series | None:
    if path is not None:
        table = read_table(path)
        if table.shape[1] != 1:
            raise LabelError(f"{path.name} has {table.shape[1]} columns beside the id: expected id,patient")
        missing = len(ids.difference(table.index))
        if missing:
            raise UnmatchedIds(f"{path.name}: {missing} ids of the truth are missing")
        return table.iloc[:, 0].loc[ids]
    for name in truth.columns:
        if "".join(filter(str.isalpha, name)).lower() in PATIENT_COLUMNS:
            # A row without a patient stands for itself.
            return truth[name].astype(object).where(truth[name].notna(), "id " + ids.to_series())
    return None
