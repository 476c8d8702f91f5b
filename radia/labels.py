"""Tables of labels from a hospital, joined to its studies, and their merge with blind reads.

A label is 1 (present), 0 (absent), -1 (uncertain) or blank (not mentioned). What of a table cannot be used is an error
that names the column; that a report has no image, or an image no report, is counted and never stops anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import LabelError, UnknownFinding
from radia.findings import FINDINGS
from radia.tables import by_id, label_values, read_table

if TYPE_CHECKING:
    from radia.dicom.pseudonyms import Pseudonymizer

GIVEN, REPORT, READ = "given", "report", "read"
"""Where a label comes from: a table of labels, the text of a report, a blind read."""


def origin_column(finding: str) -> str:
    """The column that says where the labels of a finding come from."""
    return f"{finding} origin"


def cue_column(finding: str) -> str:
    """The column that names what in a report gave the label of a finding."""
    return f"{finding} cue"


@dataclass(frozen=True)
class LinkedLabels:
    """Labels by study.

    frame: `study`, the 14 findings as floats with NaN for blank, and for each a column `<finding> origin` ('given',
    'report' or None where blank); one row a study, sorted by study.
    """

    frame: pd.DataFrame
    rows: int
    """Rows of the tables."""
    rows_without_image: int
    """Rows whose study has no image here."""
    studies_without_label: int
    """Studies with an image and no row."""
    evidence: pd.DataFrame | None = None
    """Of labels from reports: `study`, `language`, and `<finding> cue`, what in the report gave the label; no words."""

    @property
    def counts(self) -> dict[str, int]:
        """The counts, for a summary."""
        return {
            "labelled_studies": len(self.frame),
            "rows": self.rows,
            "rows_without_image": self.rows_without_image,
            "studies_without_label": self.studies_without_label,
        }


def read_label_table(path: Path) -> pd.DataFrame:
    """A CSV of labels: `id` (its first column, whatever its name; text) and the 14 findings in their order, as floats.

    Columns may come in any order; all must be findings and all 14 must be there (blank where nothing is known).
    Raises LabelError, UnknownFinding, BadLabelValue, UnmatchedIds.
    """
    return _checked(read_table(path), path.name)


def link(
    labels: pd.DataFrame, pseudonymizer: Pseudonymizer, manifest: pd.DataFrame, *, origin: str = GIVEN
) -> LinkedLabels:
    """Joins labels by accession number (`id`) to the studies of the manifest, over the accession's pseudonym.

    Where two accessions of one study contradict each other the label is uncertain. Raises LabelError where no row
    matches a study.
    """
    return _link_all([(labels, origin, "the table")], pseudonymizer, manifest)


def link_tables(paths: Sequence[Path], pseudonymizer: Pseudonymizer, manifest: pd.DataFrame) -> LinkedLabels:
    """Joins `….labels.csv` and `….reports.csv` files to the studies. No file gives no labels.

    Where both speak of a finding of a study the table of labels counts; of two files of a kind the later one does.
    Raises LabelError, naming the file, where no row of one matches: it is another hospital's.
    """
    tables: list[tuple[pd.DataFrame, str, str]] = []
    told: list[pd.DataFrame] = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns):
        if path.name.endswith("reports.csv"):
            from radia.reports import label_with_evidence, read_report_table

            labelled = label_with_evidence(read_report_table(path))
            told.append(report_cues(labelled.labels, labelled.evidence))
            tables.append((_checked(by_id(labelled.labels, name=path.name), path.name), REPORT, path.name))
        else:
            tables.append((read_label_table(path), GIVEN, path.name))
    linked = _link_all(sorted(tables, key=lambda table: table[1] == GIVEN), pseudonymizer, manifest)
    return replace(linked, evidence=_linked_evidence(told, pseudonymizer, manifest)) if told else linked


def report_cues(labels: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """What in the report gave each label: `id`, `language`, `<finding> cue`; names of cues, never a word of the report.

    labels, evidence: as radia.reports.label_with_evidence gives them. Of a label's places those count that say its
    value. A blank label's cue is `not mentioned`; a label that no place gave (No Finding) has `nothing else found`.
    """
    out = pd.DataFrame({"id": labels["id"].to_numpy()})
    spoken = evidence[evidence["finding"].notna()]
    languages = spoken.groupby("id")["language"].agg(lambda said: said.value_counts().index[0])
    out["language"] = out["id"].map(languages).fillna("unknown")
    for finding in FINDINGS:
        values = labels.set_index("id")[finding]
        of_this = spoken[spoken["finding"] == finding]
        giving = of_this[of_this["value"].astype(float).to_numpy() == of_this["id"].map(values).to_numpy()]
        cues = giving.groupby("id")["cues"].agg(lambda told: " + ".join(sorted(set(filter(None, told)))))
        named = out["id"].map(cues.replace("", "plain statement"))
        silent = np.where(values.isna().to_numpy(), "not mentioned", "nothing else found")
        out[cue_column(finding)] = named.where(named.notna(), pd.Series(silent))
    return out


def merge_reads(given: pd.DataFrame, reads: pd.DataFrame | None) -> pd.DataFrame:
    """The labels with every cell that was read again replaced by the read, and the origin of each cell.

    given: `study`, 14 findings and maybe their origins; reads: the same shape, one row a study, blank where a finding
    was not read; a study without given labels is added. Returns `study`, 14 findings, 14 origins, sorted by study.
    """
    merged = _with_origins(given, GIVEN)
    if reads is None or reads.empty:
        return _as_frame(merged)
    return _as_frame(_over(merged, _with_origins(reads, READ)))


def with_doubt(
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    present: NDArray[np.float64],
    *,
    soft: float = 0.0,
    weigh: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Training targets and weights [n, f] that know how far labels can be trusted.

    present [n, f]: the probability that the finding is truly there (1 and 0 where it was read). soft: the part of the
    target that is this probability instead of the label (a label smoothed by evidence; Northcutt et al., JAIR 2021, use
    it to prune, Müller et al. 2019 smooth without it). weigh: a cell weighs as much as its label is likely to be right.
    """
    doubted = (1 - soft) * targets + soft * present
    right = np.where(targets >= 0.5, present, 1 - present) if weigh else np.ones_like(present)
    return doubted.astype(np.float32), (weights * right).astype(np.float32)


# --- joining --------------------------------------------------------------------------------------------------------


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """table: indexed by id. Returns `id` and the findings."""
    for column in table.columns:
        if column not in FINDINGS:
            raise UnknownFinding(_harmless(str(column)), FINDINGS)
    missing = [finding for finding in FINDINGS if finding not in table.columns]
    if missing:
        raise LabelError(f"{name} lacks the columns {', '.join(missing)}: add them, blank where nothing is known")
    values = label_values(table, FINDINGS, name=name)
    return pd.DataFrame(values, columns=list(FINDINGS)).assign(id=table.index.to_numpy())[["id", *FINDINGS]]


def _harmless(column: str) -> str:
    """A column's name for a message, unless the file has no header and the name is a value."""
    return column if sum(map(str.isdigit, column)) < 4 and len(column) <= 40 else "(a long or numeric name)"


def _link_all(
    tables: Iterable[tuple[pd.DataFrame, str, str]], pseudonymizer: Pseudonymizer, manifest: pd.DataFrame
) -> LinkedLabels:
    """tables: labels, their origin, the table's name. Later ones win."""
    studies = _studies(manifest)
    linked = _with_origins(pd.DataFrame({"study": [], **{finding: [] for finding in FINDINGS}}), GIVEN)
    rows = unmatched = 0
    for table, origin, name in tables:
        accession = [pseudonymizer.accession(str(number)) for number in table["id"]]
        joined = table.assign(accession=accession).merge(studies, on="accession")
        matched = joined["id"].nunique()
        if len(table) and not matched:
            raise LabelError(
                f"none of the {len(table)} rows of {name} belongs to a study here: the table seems to be another "
                "hospital's, or its first column is not the accession number; take it out of landing/tables, or take "
                "its images in first"
            )
        rows += len(table)
        unmatched += len(table) - matched
        linked = _over(linked, _with_origins(_one_row_a_study(joined), origin))
    without = len(set(manifest["study"]) - set(linked.index))
    return LinkedLabels(_as_frame(linked), rows, unmatched, without)


def _linked_evidence(
    told: Sequence[pd.DataFrame], pseudonymizer: Pseudonymizer, manifest: pd.DataFrame
) -> pd.DataFrame:
    """By study; of several reports of a study the last file's last counts."""
    together = pd.concat(told, ignore_index=True)
    accession = [pseudonymizer.accession(str(number)) for number in together["id"]]
    joined = together.assign(accession=accession).merge(_studies(manifest), on="accession")
    kept = joined.drop_duplicates("study", keep="last").sort_values("study", ignore_index=True)
    return kept[["study", "language", *(cue_column(finding) for finding in FINDINGS)]]


def _studies(manifest: pd.DataFrame) -> pd.DataFrame:
    """`accession` and `study`. One order may have several studies of its patient; a number that two patients share
    (two hospitals that count alike) names neither."""
    known = manifest.loc[manifest["accession"].fillna("") != "", ["accession", "study", "patient"]].drop_duplicates()
    patients = known.groupby("accession")["patient"].transform("nunique")
    return known.loc[patients == 1, ["accession", "study"]]


def _one_row_a_study(joined: pd.DataFrame) -> pd.DataFrame:
    """Several accessions of one study: their labels together; where they contradict each other, uncertain."""
    if not joined["study"].duplicated().any():
        return joined
    grouped = joined.groupby("study")[list(FINDINGS)]
    low, high = grouped.min(), grouped.max()
    return low.where((low == high) | low.isna(), -1.0).reset_index()


def _with_origins(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Indexed by study: the findings, and their origins where there are none yet."""
    indexed = frame.set_index("study")
    values = indexed[list(FINDINGS)].astype(np.float64)
    for finding in FINDINGS:
        column = origin_column(finding)
        known = indexed[column] if column in indexed else pd.Series(origin, index=indexed.index, dtype=object)
        values[column] = known.astype(object).where(values[finding].notna(), None)
    return values


def _over(below: pd.DataFrame, above: pd.DataFrame) -> pd.DataFrame:
    """The cells of `above` where it has any, else those of `below`. Both indexed by study."""
    studies = below.index.union(above.index)
    low, high = below.reindex(studies), above.reindex(studies)
    for finding in FINDINGS:
        speaks = high[finding].notna()
        for column in (finding, origin_column(finding)):
            low[column] = high[column].where(speaks, low[column])
    return low


def _as_frame(indexed: pd.DataFrame) -> pd.DataFrame:
    origins = [origin_column(finding) for finding in FINDINGS]
    ordered = ["study", *FINDINGS, *origins]
    indexed[origins] = indexed[origins].astype(object).where(indexed[origins].notna(), None)
    return indexed.rename_axis("study").sort_index().reset_index()[ordered]
