"""The tables of the data folder, asked with SQL: which batch, snapshot, label or read holds an image or a patient."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia.findings import FINDINGS
from radia.image_quality import DEFECTS
from radia.trace.tree import Tree, present
from radia.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


_IMAGE_COLUMNS = ("image", "study", "patient", "batch", "site", "split", "source_sha256", "pixel_sha256")


@dataclass(frozen=True)
class _Source:
    """Tables joined to a snapshot's images: their files, the key of the join, the columns added, and their query."""

    files: list[Path]
    key: str
    columns: str
    query: str


class Archive:
    """The Parquet files under the data folder, asked with SQL."""

    def __init__(self, site: Workspace) -> None:
        self._site = site

    @cached_property
    def _database(self) -> Any:
        return _duckdb()

    def images(self, condition: str, *values: str) -> list[dict[str, Any]]:
        """Rows of the manifest."""
        query = f"SELECT * FROM files WHERE {condition} ORDER BY study, image"  # noqa: S608 - conditions of this module
        return self._ask(self._manifest(), query, *values)

    def near(self, column: str, identifier: str) -> list[str]:
        """The ids most like one, where any is like it."""
        query = (
            f"SELECT DISTINCT {column} AS id, levenshtein({column}, ?) AS distance FROM files "  # noqa: S608
            "ORDER BY distance, id LIMIT 3"
        )
        near = self._ask(self._manifest(), query, identifier)
        return [row["id"] for row in near if row["distance"] <= max(2, len(identifier) // 3)]

    def refusals(self, source_sha256: str) -> list[dict[str, Any]]:
        """What a refused source file was refused for."""
        files = sorted(self._site.clean.glob("*/outcomes.parquet"))
        query = "SELECT reason, outcome FROM files WHERE source_sha256 = ?"
        return self._ask(files, query, source_sha256)

    def cleaning(self, batch: str, image: str) -> list[Tree]:
        """What de-identification did to an image."""
        rows = self._ask([self._site.clean / batch / "outcomes.parquet"], "SELECT * FROM files WHERE image = ?", image)
        kept = ("outcome", "profile", "table_sha256", "key_fingerprint", "boxes", "actions")
        return [Tree("de-identification", present({name: _parsed(row.get(name)) for name in kept})) for row in rows]

    def labels(self, study: str) -> list[Tree]:
        """The labels given for a study, with their origin where it is known."""
        files = sorted(self._site.labels.glob("*.parquet"))
        found = []
        for file in files:
            for row in self._ask([file], "SELECT * FROM files WHERE study = ?", study):
                origin = {name: value for name, value in row.items() if name not in (*FINDINGS, "study")}
                found.append(Tree(f"labels {file.stem}", present({**_labelled(row), "origin": present(origin)})))
        return found

    def suspects(self, study: str) -> list[Tree]:
        """Labels of a study that were suspected."""
        file = self._site.suspects / "suspects.parquet"
        rows = self._ask([file], "SELECT * FROM files WHERE id = ? ORDER BY rank LIMIT 14", study)
        facts = {row["finding"]: {name: row[name] for name in ("given", "probability", "rank")} for row in rows}
        return [Tree("suspects", facts)] if facts else []

    def reads(self, study: str, image: str) -> list[Tree]:
        """What radiologists read."""
        found = []
        for file in sorted(self._site.reads.glob("*.parquet")):
            for column, identifier in (("study", study), ("image", image), ("id", study), ("id", image)):
                if column in _columns(file):
                    rows = self._ask([file], f'SELECT * FROM files WHERE "{column}" = ?', identifier)  # noqa: S608
                    found += [Tree(f"read in {file.stem}", present(row)) for row in rows]
        return found

    def snapshots_with(self, column: str, identifier: str) -> list[dict[str, Any]]:
        """The snapshots on this machine that hold an image or a patient: digest, split, images and labels."""
        found = []
        for folder in sorted(self._site.snapshots.glob("*/images.parquet")):
            query = f"SELECT split, study, count(*) AS images FROM files WHERE {column} = ? GROUP BY ALL ORDER BY ALL"  # noqa: S608
            rows = self._ask([folder], query, identifier)
            if rows:
                sides: dict[str, int] = {}
                for row in rows:
                    sides[row["split"]] = sides.get(row["split"], 0) + row["images"]
                split = next(iter(sides)) if len(sides) == 1 else sides
                entry: dict[str, Any] = {"snapshot": folder.parent.name, "split": split}
                entry["images"] = sum(row["images"] for row in rows)
                if column == "image":
                    entry["labels"] = self._snapshot_labels(folder.parent, rows[0]["study"])
                found.append(entry)
        return found

    def snapshot_rows(self, digest: str) -> pd.DataFrame:
        """All images of a snapshot with their labels, and as far as it is known here: the profile by which each was
        de-identified and how many boxes were blanked, the defects found in its pixels, and where its labels are from.
        Columns stay in Arrow: a million rows of text cost no objects.
        """
        import pandas as pd

        folder, beside = self._site.snapshots / digest, self._beside()
        columns = ", ".join(f"images.{name}" for name in _IMAGE_COLUMNS)
        told = "".join(f", {source.columns}" for source in beside)
        joins = " ".join(f"LEFT JOIN ({source.query}) USING ({source.key})" for source in beside)
        query = (
            f"SELECT {columns}{told}, labels.* EXCLUDE (study) FROM read_parquet(?) AS images "  # noqa: S608
            f"LEFT JOIN read_parquet(?) AS labels USING (study) {joins} ORDER BY images.image"
        )
        files = [
            *(_parts(folder / name) for name in ("images.parquet", "labels.parquet")),
            *(one.files for one in beside),
        ]
        table = self._database.sql(query, params=[list(map(str, each)) for each in files]).to_arrow_table()
        rows: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return rows

    def quality(self, image: str) -> list[Tree]:
        """What was measured of an image's pixels, and the defects that the measures speak for."""
        rows = self._ask(self._pictures(), "SELECT * FROM files WHERE image = ? LIMIT 1", image)
        defects = [{name: "found" if row[name] else "not found" for name in DEFECTS} for row in rows]
        return [Tree("image quality", found) for found in defects]

    def _beside(self) -> list[_Source]:
        """The tables that say more of a snapshot's images, as far as they are here."""
        table = "FROM read_parquet(?, union_by_name = true)"
        flags = ", ".join(f"CASE WHEN \"{name}\" > 0 THEN '{name}' END" for name in DEFECTS)
        origins = ", ".join(f'"{finding} origin"' for finding in FINDINGS)
        cleaned = (
            f"SELECT image, any_value(profile) AS deidentified, any_value(len(boxes)) AS boxes {table} GROUP BY image"
        )
        seen = (
            f"SELECT image, any_value(coalesce(array_to_string([{flags}], ' '), '')) AS defects {table} GROUP BY image"
        )
        given = f"SELECT study, array_to_string(list_sort(list_distinct([{origins}])), '; ') AS label_origin {table}"
        sources = (
            _Source(sorted(self._site.clean.glob("*/outcomes.parquet")), "image", "deidentified, boxes", cleaned),
            _Source(self._pictures(), "image", "defects", seen),
            _Source(sorted(self._site.labels.glob("given.parquet")), "study", "label_origin", given),
        )
        return [source for source in sources if source.files]

    def _pictures(self) -> list[Path]:
        return sorted((self._site.records / "pictures").glob("*.parquet"))

    def _snapshot_labels(self, folder: Path, study: str) -> dict[str, Any]:
        rows = self._ask([folder / "labels.parquet"], "SELECT * FROM files WHERE study = ?", study)
        return _labelled(rows[0]) if rows else {}

    def _manifest(self) -> list[Path]:
        return sorted(self._site.manifest.glob("*.parquet"))

    def _ask(self, files: Sequence[Path], query: str, *values: str) -> list[dict[str, Any]]:
        present = [str(part) for file in files for part in _parts(file)]
        if not present:
            return []
        view = "(SELECT * FROM read_parquet(?, union_by_name = true)) AS files"
        text, parameters = query.replace("FROM files", f"FROM {view}"), [*values]
        before = query[: query.index("FROM files")].count("?")
        cursor = self._database.execute(text, [*parameters[:before], present, *parameters[before:]])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def rows_as_json(rows: pd.DataFrame) -> Iterator[str]:
    """The rows of a table as JSON lists with commas between them, some thousands in a piece; NaN is null."""
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    if not len(table):
        return
    database = _duckdb()
    database.register("rows", table)
    names = ", ".join(
        f"nullif(\"{column.name}\", 'nan')" if pa.types.is_floating(column.type) else f'"{column.name}"'
        for column in table.schema
    )
    batches = database.sql(f"SELECT CAST(json_array({names}) AS VARCHAR) FROM rows").to_arrow_table().to_batches()  # noqa: S608
    for place, batch in enumerate(batches):
        yield ", " if place else ""
        yield ", ".join(batch.column(0).to_pylist())


def _duckdb() -> Any:
    """A database of no file, which looks for nothing on a network."""
    import duckdb

    database = duckdb.connect(config={"threads": 2, "autoinstall_known_extensions": False})
    database.execute("SET enable_progress_bar = false")
    return database


def _parts(file: Path) -> list[Path]:
    """A table's file, or the files of one that is a folder of parts (a snapshot's: one a batch)."""
    return sorted(file.glob("*.parquet")) if file.is_dir() else [file] if file.is_file() else []


def _columns(file: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(file).names)


def _labelled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The findings that a row says something of."""
    return {name: row[name] for name in FINDINGS if row.get(name) is not None and row[name] == row[name]}


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
