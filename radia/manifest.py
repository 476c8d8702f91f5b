"""One row per image, de-identified: what every later stage knows of it. The spine of the archive.

One Parquet file per batch, so that adding a batch costs the same however many there are. What the columns mean stands
in `SCHEMA` and in every file. Measures of the pixels come from the index of the shards, facts from the cleaned header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from radia.errors import ManifestError, UnknownId
from radia.workspace import written_whole


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable, {"description": description})


SCHEMA = pa.schema(
    [
        _field("image", pa.string(), "pseudonym of the SOP instance; unique"),
        _field("study", pa.string(), "pseudonym of the study"),
        _field("patient", pa.string(), "pseudonym of the patient"),
        _field("accession", pa.string(), "pseudonym of the accession number", nullable=True),
        _field("batch", pa.string(), "batch of intake, <site>-<yyyymmdd>-<n>"),
        _field("site", pa.string(), "hospital that sent it"),
        _field("view", pa.string(), "AP or PA by the header; null: it does not say", nullable=True),
        _field("sex", pa.string(), "M, F or O", nullable=True),
        _field("age", pa.int16(), "whole years at the study, 90 for 90 and above", nullable=True),
        _field("age_band", pa.string(), "0-17, 18-39, 40-59, 60-79 or 80+", nullable=True),
        _field("manufacturer", pa.string(), "maker of the device", nullable=True),
        _field("model", pa.string(), "maker's name of the device's model", nullable=True),
        _field("study_date", pa.date32(), "date of the study, shifted by the patient's secret offset", nullable=True),
        _field("rows", pa.int32(), "height of the source image in pixels"),
        _field("columns", pa.int32(), "width of the source image in pixels"),
        _field("bits", pa.int16(), "bits stored per pixel of the source", nullable=True),
        _field("photometric", pa.string(), "photometric interpretation of the source", nullable=True),
        _field("transfer_syntax", pa.string(), "UID of the clean file's transfer syntax", nullable=True),
        _field("source_sha256", pa.string(), "SHA-256 of the file as it was received"),
        _field("pixel_sha256", pa.string(), "SHA-256 of the image in its shard"),
        _field("shard", pa.string(), "file in images/<batch>/"),
        _field("row", pa.int64(), "place in the shard, from 0"),
        _field("exposure", pa.float64(), "mean gray without padding, 0..1"),
        _field("contrast", pa.float64(), "95th less 5th percentile of gray, 0..1"),
        _field("saturation", pa.float64(), "share of pixels at the darkest or brightest value, 0..1"),
        _field("perceptual_hash", pa.string(), "64 bits that survive resizing and exposure, 16 hex digits"),
    ]
)

_AGE_BANDS = ((17, "0-17"), (39, "18-39"), (59, "40-59"), (79, "60-79"), (999, "80+"))
_FROM_OUTCOMES = ["image", "study", "patient", "accession", "source_sha256", "output"]
_FROM_INDEX = ["image", "pixel_sha256", "shard", "row", "exposure", "contrast", "saturation", "perceptual_hash"]


def build(clean: Path, outcomes: pd.DataFrame, index: pd.DataFrame, *, batch: str, site: str) -> pd.DataFrame:
    """The rows of one batch, sorted by image: every image that the index has, with the facts of its clean header.

    outcomes: of the de-identification; index: of the shards, refused files are left out.
    Raises UnknownId where the index has an image that the outcomes do not have.
    """
    kept = index.loc[index["shard"].notna(), _FROM_INDEX]
    cleaned = outcomes.loc[outcomes["outcome"] == "clean", _FROM_OUTCOMES]
    rows = kept.merge(cleaned, on="image", how="left", validate="one_to_one").sort_values("image", ignore_index=True)
    unknown = int(rows["source_sha256"].isna().sum())
    if unknown:
        raise UnknownId(f"batch {batch}: {unknown} images have no clean file: run `radia images` again")
    facts = pd.DataFrame([_facts(clean / str(output)) for output in rows["output"]], columns=_FACT_COLUMNS)
    return _typed(pd.concat([rows.drop(columns="output"), facts], axis=1).assign(batch=batch, site=site))


def write(rows: pd.DataFrame, folder: Path, *, batch: str) -> Path:
    """Writes one batch's rows to `<folder>/<batch>.parquet`, columns typed and described."""
    target = folder / f"{batch}.parquet"
    with written_whole(target) as partial:
        pq.write_table(_table(rows), partial)
    return target


def load(folder: Path) -> pd.DataFrame:
    """The rows of all batches, sorted by image; none gives an empty frame with all columns."""
    parts = [pq.read_table(path).select(SCHEMA.names) for path in sorted(folder.glob("[!.]*.parquet"))]
    if not parts:
        return _frame(SCHEMA.empty_table())
    table = pa.concat_tables([part.cast(SCHEMA) for part in parts])
    return _frame(table.sort_by("image"))


def query(
    folder: Path, sql: str, parameters: Sequence[object] = (), *, tables: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """The answer of DuckDB to a question to the manifest, which is the table `manifest`; only what it names is read.

    tables: more Parquet files, by the name that the question gives them. Raises ManifestError, with DuckDB's words,
    where the question is not SQL or names a column that does not exist.
    """
    import duckdb

    sources = {"manifest": folder / "*.parquet"} | dict(tables or {})
    with duckdb.connect() as connection:
        try:
            for name, source in sources.items():
                connection.read_parquet(str(source)).create_view(name)
            answer: pd.DataFrame = connection.execute(sql, list(parameters)).df()
        except duckdb.Error as error:
            raise ManifestError(f"the manifest cannot be asked this: {str(error).splitlines()[0]}") from error
    return answer


def age_band(age: int | None) -> str | None:
    """The band of an age in whole years."""
    if age is None:
        return None
    return next(band for upper, band in _AGE_BANDS if age <= upper)


_FACT_COLUMNS = [
    *("view", "sex", "age", "age_band", "manufacturer", "model", "study_date"),
    *("rows", "columns", "bits", "photometric", "transfer_syntax"),
]


def _facts(path: Path) -> dict[str, object]:
    from radia.dicom.facts import read_facts
    from radia.frontal import frontal_view

    facts = read_facts(path)
    return asdict(facts) | {"view": frontal_view(facts.view), "age_band": age_band(facts.age)}


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    return _frame(_table(rows))


def _table(rows: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows[SCHEMA.names], schema=SCHEMA, preserve_index=False).replace_schema_metadata(None)


def _frame(table: pa.Table) -> pd.DataFrame:
    """As pandas: nullable integers stay integers, dates stay dates."""
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True, date_as_object=True)
    return frame.astype({"age": "Int16", "bits": "Int16"})
