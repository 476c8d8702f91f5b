"""Erasure after a withdrawal (Quebec, Law 25): the patient's files and pixels go, their digests stay as tombstones.

Gone afterwards: the files as they came (landing zone, quarantine), the clean DICOM, the pixels in shards and in every
version that DVC keeps, the rows of manifest, labels and of the tables of labels and reports, and the way back from the
pseudonym. What stays names nobody: receipts, outcomes and indexes with digests and pseudonyms, the rows of frozen
snapshots, blind reads, and the ledger. What MLflow keeps of models (figures in reports) is a record and stays;
`withdraw` lists those models.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radia import images, snapshot
from radia.dicom.crosswalk import Crosswalk
from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import WithdrawalError
from radia.ledger import Action, Ledger, file_digests
from radia.trace import withdrawn_patients
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Erasure:
    """files: received files that were removed. images: images whose pixels are gone. tombstones: digests that stay."""

    patient: str
    files: int
    images: int
    tombstones: tuple[str, ...]


def erase(site: Workspace, ledger: Ledger, patient: str, *, actor: str, key: bytes, person: str = "") -> Erasure:
    """Erases what is kept of a patient (pseudonym) who withdrew. A second call finishes what a killed one left.

    key: the pseudonymisation key, by which the patient's rows are found in the tables of labels and reports. Raises
    WithdrawalError where no withdrawal is recorded.
    """
    if patient not in withdrawn_patients(ledger):
        raise WithdrawalError("only who withdrew is erased: `radia withdraw PATIENT --erase` does both")
    rows = _outcomes_of(site, patient)
    changed: list[Path] = []
    files = sum(_remove_received(site, batch, set(part["source_sha256"])) for batch, part in rows.items())
    for batch, part in rows.items():
        shutil.rmtree(site.clean / batch / patient, ignore_errors=True)
        if (index := site.images / batch / images.INDEX).is_file():
            images.erase_images(site.images, batch, set(part["image"]))
            snapshot.forget_versions(site.archive, batch)
            changed.append(index)
        for kept in (site.records / "pictures").glob(f"{batch}.*.parquet"):
            kept.unlink()
        changed += _without(site.manifest / f"{batch}.parquet", "patient", {patient})
    studies = {study for part in rows.values() for study in part["study"]}
    changed += _without(site.labels / "given.parquet", "study", studies)
    changed += _without(site.suspects / "suspects.parquet", "id", studies)
    changed += _without(site.suspects / "present.parquet", "study", studies)
    for derived in (site.labels / "evidence.parquet", site.suspects / "probabilities.parquet"):
        list(_without(derived, "study", studies))  # no event records these: they are made anew with the others
    shutil.rmtree(site.models / "base-features", ignore_errors=True)
    accessions = {name for part in rows.values() for name in part["accession"]}
    _remove_from_tables(site.landing / "tables", accessions, Pseudonymizer(key))
    Crosswalk(site.crosswalk, key).forget(patient)
    tombstones = tuple(sorted(digest for part in rows.values() for digest in part["source_sha256"]))
    pictures = sum(len(part) for part in rows.values())
    ledger.append(
        Action.ERASE,
        actor=actor,
        subjects=[patient],
        inputs={f"source {number}": digest for number, digest in enumerate(tombstones)},
        parameters={"images": pictures, "person": person or actor},
        files=file_digests(site, dict.fromkeys(changed)),
        once=f"erase:{patient}:{hashlib.sha256(' '.join(tombstones).encode()).hexdigest()}",
    )
    return Erasure(patient, files, pictures, tombstones)


def _outcomes_of(site: Workspace, patient: str) -> dict[str, pd.DataFrame]:
    """The patient's rows of each batch's outcomes, clean ones."""
    import pandas as pd

    found = {}
    for path in sorted(site.clean.glob("*/outcomes.parquet")):
        table = pd.read_parquet(path, columns=["source_sha256", "patient", "study", "image", "accession"])
        part = table[table["patient"] == patient]
        if len(part):
            found[path.parent.name] = part
    return found


def _remove_received(site: Workspace, batch: str, digests: set[str]) -> int:
    """Removes files as they came, and their copies in quarantine."""
    landed = [site.landing / batch / "files" / digest for digest in sorted(digests)]
    quarantined = [path for path in (site.quarantine / batch).glob("*/*") if path.name in digests]
    removed = 0
    for path in [*landed, *quarantined]:
        if path.is_file():
            path.unlink()
            removed += 1
    return removed


def _without(table: Path, column: str, gone: set[str]) -> Iterator[Path]:
    """Writes a Parquet table anew without some rows, where it has any; yields its path where it is one."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not table.is_file():
        return
    content = pq.read_table(table)
    if column in content.column_names:
        mine = pc.is_in(content[column].cast(pa.string()), value_set=pa.array(sorted(gone), pa.string()))
        kept = content.filter(pc.invert(mine))
        if len(kept) < len(content):
            with written_whole(table) as partial:
                pq.write_table(kept, partial)
    yield table


def _remove_from_tables(folder: Path, accessions: set[str], names: Pseudonymizer) -> None:
    """Writes the hospital's tables anew without the rows of these accessions, under the digest of what is left."""
    import pandas as pd

    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        mine = table.iloc[:, 0].map(lambda number: names.accession(str(number))).isin(accessions)
        if not mine.any():
            continue
        text = table[~mine].to_csv(index=False)
        kind = path.name.partition(".")[2]
        with written_whole(folder / f"{hashlib.sha256(text.encode()).hexdigest()}.{kind}") as partial:
            partial.write_text(text, encoding="utf-8")
        path.unlink()
