"""Tables of reports: reading a CSV of them, labelling all."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from radia.errors import LabelError, UnmatchedIds
from radia.findings import FINDINGS
from radia.reports.canary import check_canary
from radia.reports.labeler import Evidence, label_report

_LONGEST_FIELD = 10_000_000


def read_report_table(path: Path) -> pd.DataFrame:
    """A CSV of reports as `id` and `text`, both text: its first column and the other one, whatever their names.

    UTF-8 with or without a mark, UTF-16 with one, or Latin-1; separated by commas, semicolons or tabs; quoted texts
    may run over lines. A blank text is kept as "". Raises LabelError, UnmatchedIds (blank or doubled ids).
    """
    if not path.is_file():
        raise LabelError(f"{path} does not exist")
    rows = _rows(_decoded(path.read_bytes(), path.name), path.name)
    if len(rows) < 2:
        raise LabelError(f"{path.name} has no report: expected a header of an id and a text, then one row per report")
    column = _text_column(rows[0], path.name)
    uneven = sum(len(row) != len(rows[0]) for row in rows)
    if uneven:
        raise LabelError(
            f"{path.name}: {uneven} of {len(rows) - 1} rows have not the {len(rows[0])} fields of the header; "
            "a text that holds the separator or a line end must be in double quotes"
        )
    table = pd.DataFrame({"id": [row[0].strip() for row in rows[1:]], "text": [row[column] for row in rows[1:]]})
    return _checked(table, path.name)


EVIDENCE_COLUMNS = ("id", "finding", "value", "start", "end", "section", "language", "cues", "reason")


@dataclass(frozen=True)
class LabelledReports:
    """A table of reports, labelled.

    labels: `id` and the 14 findings as floats (1, 0, -1, NaN for blank). evidence: EVIDENCE_COLUMNS, a row for each
    place that speaks of a finding (offsets in the text as given, cues joined by ` + `, never a word of it), and one for
    each report that got no label, with the reason. abstained: reason -> reports.
    """

    labels: pd.DataFrame
    evidence: pd.DataFrame
    abstained: Mapping[str, int]


def label_reports(table: pd.DataFrame) -> pd.DataFrame:
    """`id` and the 14 findings as floats (1, 0, -1, NaN for blank), one row for each of `id`, `text`.

    Raises LabelError where the labeler does not label its own canary report rightly: then no label can be trusted.
    """
    return label_with_evidence(table).labels


def label_with_evidence(table: pd.DataFrame) -> LabelledReports:
    """The labels of each of `id`, `text`, what gave them, and why reports got none. Raises LabelError (canary)."""
    check_canary()
    values = np.full((len(table), len(FINDINGS)), np.nan)
    evidence: list[tuple[object, ...]] = []
    reasons: Counter[str] = Counter()
    for row, (number, text) in enumerate(zip(table["id"], table["text"], strict=True)):
        told = label_report(text if isinstance(text, str) else "")
        values[row] = [np.nan if (value := told.values[finding]) is None else value for finding in FINDINGS]
        evidence += [(number, *_told(piece), None) for piece in told.evidence]
        if told.reason is not None:
            reasons[told.reason] += 1
            evidence.append((number, *[None] * (len(EVIDENCE_COLUMNS) - 2), told.reason))
    labelled = pd.DataFrame(values, columns=list(FINDINGS))
    labelled.insert(0, "id", table["id"].to_numpy())
    places = pd.DataFrame(evidence, columns=list(EVIDENCE_COLUMNS)).astype({"start": "Int64", "end": "Int64"})
    return LabelledReports(labelled, places, dict(reasons))


def _told(piece: Evidence) -> tuple[object, ...]:
    cues = " + ".join(piece.cues)
    return piece.finding, piece.value, piece.start, piece.end, piece.section, piece.language, cues


def _decoded(content: bytes, name: str) -> str:
    if b"\x00" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LabelError(f"{name} is not text: expected a CSV of reports")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _rows(text: str, name: str) -> list[list[str]]:
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    previous = csv.field_size_limit(_LONGEST_FIELD)
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
    except csv.Error as error:
        raise LabelError(f"{name} cannot be read as CSV: {type(error).__name__}") from error
    finally:
        csv.field_size_limit(previous)


_TEXT_COLUMNS = ("text", "report", "texte", "rapport", "report text", "reporttext", "report_text")


def _text_column(header: list[str], name: str) -> int:
    """Where the texts stand: the column so named, or the second of two."""
    named = [i for i, column in enumerate(header) if i and column.strip().lower() in _TEXT_COLUMNS]
    if len(named) == 1:
        return named[0]
    if len(header) == 2:
        return 1
    raise LabelError(
        f"{name} has {len(header)} columns; expected an id and one column named `text` or `Report` (comma-separated)"
    )


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    blank = int((table["id"] == "").sum())
    if blank:
        raise UnmatchedIds(f"{name}: {blank} rows have no id")
    doubled = int(table["id"].duplicated().sum())
    if doubled:
        raise UnmatchedIds(f"{name}: {doubled} ids stand there more than once; expected one report per id")
    return table
