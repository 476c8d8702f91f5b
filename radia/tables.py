"""CSV tables whose first column is an id and whose other columns are findings: reading, checking, lining up.

The commands that stand alone take files of anybody's making: any name for the id column, any order and names of the
findings. What the findings mean is not known here; which columns belong together is. Errors name columns and counts,
never an id or a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.findings import ABSENT, PRESENT, UNCERTAIN

LABEL_VALUES = (PRESENT, ABSENT, UNCERTAIN)


def read_table(path: Path, *, may_be_empty: bool = False) -> pd.DataFrame:
    """The table of a CSV file, indexed by its first column (as text, named `id`).

    may_be_empty: a header without a row is a table too. Raises LabelError where it cannot be read as CSV, UnmatchedIds
    where ids are doubled or blank.
    """
    if not path.is_file():
        raise LabelError(f"{path} does not exist")
    try:
        # Ids are text ("007" is not "7"); numbers are read to the last bit, so that ties stay ties.
        table = pd.read_csv(path, dtype={0: str}, float_precision="round_trip")
        table.columns = table.columns.str.strip()
    except (OSError, ValueError) as error:
        raise LabelError(f"{path.name} cannot be read as CSV: {type(error).__name__}") from error
    if table.shape[1] == 0 or (table.empty and not may_be_empty):
        raise LabelError(f"{path.name} has no row")
    if table.columns.has_duplicates:
        raise UnmatchedIds(f"{path.name} has a doubled column: each finding must stand once")
    first = table.columns[0]
    return _with_good_ids(table.assign(**{first: table[first].str.strip()}).set_index(first), path.name)


def by_id(table: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """The table indexed by `id` as text. Takes one that has a column `id`, or that is indexed by it already.

    Raises UnmatchedIds where ids are doubled or blank.
    """
    return _with_good_ids(table.set_index("id") if "id" in table.columns else table, name)


def _with_good_ids(indexed: pd.DataFrame, name: str) -> pd.DataFrame:
    blank = int(np.asarray(indexed.index.isna()).sum())
    if blank:
        raise UnmatchedIds(f"{name}: {blank} rows have no id")
    indexed = indexed.set_axis(indexed.index.astype(str).rename("id"), axis=0)
    doubled = int(indexed.index.duplicated().sum())
    if doubled:
        raise UnmatchedIds(f"{name}: {doubled} ids stand there more than once; expected one row per id")
    return indexed


def common_findings(*tables: pd.DataFrame, among: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns that all tables have, in the order of the first. Raises UnknownFinding where there is none."""
    shared = [str(c) for c in tables[0].columns if all(c in table.columns for table in tables[1:])]
    if among:
        missing = [c for c in among if c not in shared]
        if missing:
            raise UnknownFinding(missing[0], shared)
    if not shared:
        first = str(tables[0].columns[0]) if len(tables[0].columns) else ""
        raise UnknownFinding(first, [str(c) for c in tables[-1].columns])
    return tuple(shared)


def label_values(
    table: pd.DataFrame, findings: Sequence[str], *, name: str, allowed: Iterable[float] = LABEL_VALUES
) -> NDArray[np.float64]:
    """The labels as [n, findings] with NaN for blank. Raises BadLabelValue for any value that is not allowed."""
    values = _numbers(table, findings, name)
    bad = ~np.isnan(values) & ~np.isin(values, list(allowed))
    if bad.any():
        finding = findings[int(np.flatnonzero(bad.any(axis=0))[0])]
        expected = " / ".join(f"{value:g}" for value in allowed)
        raise BadLabelValue(f"{name}: {int(bad.sum())} values of {finding!r} and others are not {expected} or blank")
    return values


def score_values(
    table: pd.DataFrame, findings: Sequence[str], *, name: str, ranks_only: bool = False
) -> NDArray[np.float64]:
    """Scores as [n, findings]. Raises BadLabelValue for a blank, or one outside [0, 1] unless `ranks_only`."""
    values = _numbers(table, findings, name)
    blank = ~np.isfinite(values)
    if blank.any():
        finding = findings[int(np.flatnonzero(blank.any(axis=0))[0])]
        raise BadLabelValue(f"{name}: {int(blank.sum())} probabilities are blank or infinite (first in {finding!r})")
    outside = (values < 0) | (values > 1)
    if outside.any() and not ranks_only:
        finding = findings[int(np.flatnonzero(outside.any(axis=0))[0])]
        raise BadLabelValue(
            f"{name}: {int(outside.sum())} values lie outside [0, 1] (first in {finding!r}): these are not "
            "probabilities; say `--scores` if only their order counts"
        )
    return values


def rows_for(table: pd.DataFrame, ids: pd.Index[str], *, name: str) -> pd.DataFrame:
    """The table's rows for these ids, in their order. Raises UnmatchedIds, with the count, where some are missing."""
    missing = int((~ids.isin(table.index)).sum())
    if missing:
        raise UnmatchedIds(f"{name}: {missing} of {len(ids)} ids have no row there")
    return table.loc[ids]


def _numbers(table: pd.DataFrame, findings: Sequence[str], name: str) -> NDArray[np.float64]:
    try:
        return table[list(findings)].to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise BadLabelValue(f"{name}: the columns of findings hold something else than numbers") from error


def write_table(table: pd.DataFrame, path: Path) -> None:
    """CSV without the index, whole or not at all; by Arrow: ten times as fast as pandas for millions of rows."""
    import pyarrow as pa
    from pyarrow import csv

    from radia.workspace import written_whole

    rows = pa.Table.from_pandas(table, preserve_index=False)
    with written_whole(path) as partial:
        csv.write_csv(rows, partial, csv.WriteOptions(quoting_style="needed"))
