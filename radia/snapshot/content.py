"""What a snapshot holds: canonical rows of images and labels, their digest, and the split by patient."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import BadLabelValue, SnapshotError, UnmatchedIds
from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN, position
from radia.settings import SnapshotSettings
from radia.workspace import written_whole

if TYPE_CHECKING:
    pass


Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")

CONTENT = (
    "image",
    "study",
    "patient",
    "site",
    "sex",
    "age_band",
    "view",
    "manufacturer",
    "pixel_sha256",
    "source_sha256",
    "split",
)
"""Columns of `images` that make the digest."""
PLACE = ("batch", "shard", "row")
"""Columns of `images` that say where the picture lies; they do not make the digest."""

FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """Frozen studies, labels and split. `digest`: 64 hex digits; `folder`: where its three parts lie."""

    digest: str
    folder: Path

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image, sorted by image: the columns CONTENT and PLACE."""
        return _read(self.folder / "images.parquet").sort_values("image", ignore_index=True)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """One row a study, sorted by study: `study` and the 14 findings (1, 0, -1, NaN)."""
        return _read(self.folder / "labels.parquet").sort_values("study", ignore_index=True)

    @cached_property
    def description(self) -> dict[str, Any]:
        """snapshot.json: counts by side and finding, the batches, the fractions of the split, and `concerns`."""
        try:
            text = (self.folder / "snapshot.json").read_text(encoding="utf-8")
            return dict(json.loads(text))
        except (OSError, ValueError) as error:
            raise SnapshotError(f"snapshot {self.digest[:12]}: snapshot.json is missing or damaged") from error

    @property
    def concerns(self) -> tuple[str, ...]:
        """What a person should know before training on it: a side or a finding without cases."""
        return tuple(self.description["concerns"])

    @property
    def batches(self) -> tuple[str, ...]:
        """The batches that its images came in."""
        return tuple(self.description["batches"])

    @property
    def table(self) -> pd.DataFrame:
        """Images and their labels side by side, one row an image, in the order of `images`."""
        return self.images.merge(self.labels, on="study", how="left", validate="many_to_one")

    def labels_matrix(self, findings: Sequence[str] = FINDINGS) -> NDArray[np.float64]:
        """Labels [n_images, findings] in the order of `images`. Raises UnknownFinding."""
        for finding in findings:
            position(finding)
        rows = self.labels.set_index("study").reindex(self.images["study"])
        return rows.loc[:, list(findings)].to_numpy(np.float64)


def split_of(patient: str, settings: SnapshotSettings) -> Side:
    """The side of a patient: a hash of the pseudonym alone, so it never changes when patients are added or leave.

    Pseudonyms are keyed hashes, so nobody without the key can choose or foresee a side.
    """
    draw = int.from_bytes(hashlib.sha256(b"radia split 1\0" + patient.encode()).digest()[:8], "big") / 2**64
    if draw < settings.test_fraction:
        return "test"
    if draw < settings.test_fraction + settings.validation_fraction:
        return "validation"
    return "train"


def outside_test(reads: pd.DataFrame, manifest: pd.DataFrame, settings: SnapshotSettings) -> pd.DataFrame:
    """The rows (with `study`) whose patient is not on the test side.

    Labels of the test side stay as they were given: correcting some of them, the suspicious ones first, makes every
    model look better than it is. Estimates take its reads with their sampling probabilities instead.
    """
    studies = manifest.drop_duplicates("study").set_index("study")["patient"]
    patients = reads["study"].map(studies)
    side = patients.map(lambda patient: split_of(str(patient), settings))
    return reads[patients.notna() & (side != "test")].reset_index(drop=True)


def freeze(
    manifest: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    settings: SnapshotSettings,
    folder: Path,
    withdrawn: frozenset[str] = frozenset(),
) -> Snapshot:
    """Writes `folder/<digest>/` and returns it; the same content a second time touches nothing.

    Only images with a row of labels are kept; patients in `withdrawn` (pseudonyms) are left out.
    Raises SnapshotError where no image, no label, or no patient to train on or to test on is left; UnmatchedIds for
    doubled ids; BadLabelValue for a label other than 1, 0, -1 or blank.
    """
    label_rows = _label_rows(labels)
    image_rows = _image_rows(manifest, settings)
    image_rows = image_rows[~image_rows["patient"].isin(withdrawn) & image_rows["study"].isin(label_rows["study"])]
    image_rows = image_rows.reset_index(drop=True)
    label_rows = label_rows[label_rows["study"].isin(image_rows["study"])].reset_index(drop=True)
    _refuse_useless(manifest, image_rows, label_rows)

    digest = _digest(image_rows, label_rows)
    target = folder / digest
    if target.exists():
        return load(folder, digest)
    description = _describe(digest, image_rows, label_rows, settings)
    batch_of_study = image_rows.groupby("study")["batch"].min()
    with written_whole(target) as partial:
        _write_parts(image_rows, image_rows["batch"], partial / "images.parquet")
        _write_parts(label_rows, label_rows["study"].map(batch_of_study), partial / "labels.parquet")
        text = json.dumps(description, indent=1, sort_keys=True) + "\n"
        (partial / "snapshot.json").write_text(text, encoding="utf-8")
    return Snapshot(digest, target)


def load(folder: Path, digest: str) -> Snapshot:
    """The snapshot of that digest, its content checked against it. Raises SnapshotError."""
    snapshot = Snapshot(digest, folder / digest)
    if not snapshot.folder.is_dir():
        raise SnapshotError(
            f"no snapshot {digest[:12]} in {folder.name}/: restore it from the archive, or freeze it again"
        )
    missing = {*CONTENT, *PLACE} - set(snapshot.images.columns) | {"study", *FINDINGS} - set(snapshot.labels.columns)
    if missing:
        raise SnapshotError(f"snapshot {digest[:12]} lacks the columns {', '.join(sorted(missing))}")
    found = _digest(snapshot.images, snapshot.labels)
    if found != digest or snapshot.description.get("digest") != digest:
        raise SnapshotError(
            f"snapshot {digest[:12]} was changed after it was frozen (its content has digest {found[:12]}): "
            "restore it from the archive"
        )
    return snapshot


# --- canonical content ----------------------------------------------------------------------------------------------


def _image_rows(manifest: pd.DataFrame, settings: SnapshotSettings) -> pd.DataFrame:
    needed = [column for column in (*CONTENT, *PLACE) if column != "split"]
    missing = [column for column in needed if column not in manifest.columns]
    if missing:
        raise SnapshotError(f"the manifest lacks the columns {', '.join(missing)}")
    rows = manifest.loc[:, needed].copy()
    for column in needed:
        if column != "row":
            rows[column] = _text(rows[column])
    rows["row"] = rows["row"].astype(np.int64)
    if rows[["image", "study", "patient", "batch"]].isna().to_numpy().any():
        raise SnapshotError("the manifest has rows without image, study, patient or batch: run the quality check")
    if rows["image"].duplicated().any():
        raise UnmatchedIds(f"{int(rows['image'].duplicated().sum())} images stand in the manifest more than once")
    if (rows.groupby("study")["patient"].nunique() > 1).any():
        raise SnapshotError("a study belongs to more than one patient in the manifest: its split is not defined")
    sides = {patient: split_of(patient, settings) for patient in rows["patient"].unique()}
    rows["split"] = rows["patient"].map(sides)
    return rows.loc[:, [*CONTENT, *PLACE]].sort_values("image", ignore_index=True)


def _label_rows(labels: pd.DataFrame) -> pd.DataFrame:
    missing = [column for column in ("study", *FINDINGS) if column not in labels.columns]
    if missing:
        raise SnapshotError(f"the labels lack the columns {', '.join(missing)}")
    rows = labels.loc[:, ["study", *FINDINGS]].copy()
    rows["study"] = _text(rows["study"])
    rows[list(FINDINGS)] = rows[list(FINDINGS)].astype(np.float64)
    values = rows[list(FINDINGS)].to_numpy()
    if not (np.isnan(values) | np.isin(values, (PRESENT, ABSENT, UNCERTAIN))).all():
        raise BadLabelValue("a label is not 1, 0, -1 or blank: run the quality check on the labels")
    if rows["study"].duplicated().any():
        raise UnmatchedIds(f"{int(rows['study'].duplicated().sum())} studies have more than one row of labels")
    return rows.sort_values("study", ignore_index=True)


def _text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Plain str and None, whatever the column was made of (categories, Arrow strings, numbers)."""
    values = zip(column.astype(object).tolist(), column.isna().tolist(), strict=True)
    texts = [None if blank else value if type(value) is str else str(value) for value, blank in values]
    return pd.Series(texts, index=column.index, dtype=object)


def _digest(images: pd.DataFrame, labels: pd.DataFrame) -> str:
    """SHA-256 over the columns in a fixed order, each as a JSON list; both frames sorted by their id."""
    digest = hashlib.sha256(f"radia snapshot {FORMAT}\n".encode())
    for column in CONTENT:
        digest.update(_canonical(f"images.{column}", _text(images[column]).tolist()))
    digest.update(_canonical("labels.study", _text(labels["study"]).tolist()))
    for finding in FINDINGS:
        values = labels[finding].to_numpy(np.float64)
        digest.update(_canonical(f"labels.{finding}", [None if value != value else int(value) for value in values]))
    return digest.hexdigest()


def _canonical(name: str, values: list[Any]) -> bytes:
    return json.dumps([name, values], ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _refuse_useless(manifest: pd.DataFrame, images: pd.DataFrame, labels: pd.DataFrame) -> None:
    if images.empty:
        raise SnapshotError(
            f"nothing to freeze: of {len(manifest)} images none has a row of labels and a patient who has not withdrawn"
        )
    if labels[list(FINDINGS)].isna().to_numpy().all():
        raise SnapshotError(f"nothing to learn: all labels of all {len(labels)} studies are blank")
    for side in ("train", "test"):
        if not (images["split"] == side).any():
            raise SnapshotError(
                f"none of the {images['patient'].nunique()} patients falls on the {side} side: "
                "add patients, or raise the fraction of that side in params.yaml (snapshot)"
            )


def _describe(digest: str, images: pd.DataFrame, labels: pd.DataFrame, settings: SnapshotSettings) -> dict[str, Any]:
    side_of_study = images.drop_duplicates("study").set_index("study")["split"]
    sides: dict[str, dict[str, int]] = {
        side: {
            "images": int((images["split"] == side).sum()),
            "studies": int((side_of_study == side).sum()),
            "patients": int(images.loc[images["split"] == side, "patient"].nunique()),
        }
        for side in SIDES
    }
    side = labels["study"].map(side_of_study)
    findings = {
        finding: {
            "present": int((labels[finding] == PRESENT).sum()),
            "absent": int((labels[finding] == ABSENT).sum()),
            "uncertain": int((labels[finding] == UNCERTAIN).sum()),
            "blank": int(labels[finding].isna().sum()),
            "present_by_side": {name: int(((labels[finding] == PRESENT) & (side == name)).sum()) for name in SIDES},
        }
        for finding in FINDINGS
    }
    return {
        "format": FORMAT,
        "digest": digest,
        "images": len(images),
        "studies": len(labels),
        "patients": int(images["patient"].nunique()),
        "sides": sides,
        "findings": findings,
        "batches": sorted(images["batch"].unique()),
        "settings": settings.model_dump(mode="json"),
        "concerns": [*_empty_sides(sides), *_rare_findings(findings)],
    }


def _empty_sides(sides: dict[str, dict[str, int]]) -> Iterator[str]:
    for side, counts in sides.items():
        if not counts["patients"]:
            yield f"no patient falls on the {side} side"


def _rare_findings(findings: dict[str, dict[str, Any]]) -> Iterator[str]:
    for finding, counts in findings.items():
        if not counts["present"]:
            yield f"{finding} is never present"
            continue
        for side, present in counts["present_by_side"].items():
            if not present:
                yield f"{finding} is never present on the {side} side"


def _write_parts(rows: pd.DataFrame, batches: pd.Series[Any], folder: Path) -> None:
    """One file a batch: the parts of older batches are the same bytes in the next snapshot, and DVC keeps them once."""
    folder.mkdir(parents=True)
    for batch, part in rows.groupby(batches, sort=True):
        part.to_parquet(folder / f"{batch}.parquet", index=False, compression="zstd")


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise SnapshotError(
            f"snapshot {path.parent.name[:12]}: {path.name} is missing or damaged: restore it from the archive"
        ) from error
