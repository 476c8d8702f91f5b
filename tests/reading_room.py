"""A small site whose films wait for blind reads: what the tests of the reading pages stand on.

Studies S01 … are of patients who come twice: every other study is a later visit. What a reader must not see before the
lock is made of marks that stand nowhere else: the model's expectations are 0.73xx and 0.27xx.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from radia import manifest
from radia.findings import FINDINGS
from radia.settings import Settings
from radia.synthetic.phantom import examples
from radia.workspace import Workspace

BATCH = "HND-20260101-1"
QUESTIONS = ("Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Edema")
"""The finding in question of study 1, 2, 3, 4, 1, …"""


def site_to_read(root: Path, *, studies: int = 8, repeats: int = 1, side: int = 160) -> Workspace:
    """Clean files, manifest, labels, suspects and a queue of so many studies, of which some are read again."""
    site = Workspace(root)
    folder = site.clean / BATCH
    folder.mkdir(parents=True)
    names = [f"S{number:02d}" for number in range(1, studies + 1)]
    films = examples(studies, seed=5, side=side)
    for name, film in zip(names, films, strict=True):
        _write_film(folder / f"{name}.dcm", film)
    _write_tables(site, names)
    _write_queue(site, names, repeats)
    return site


def settings() -> Settings:
    """Those of a site with the archive's images in the size of these films."""
    return Settings.model_validate({"images": {"side": 64}})


def question(study: str) -> str:
    """The finding whose label is most suspect in a study."""
    return QUESTIONS[(int(study[1:]) - 1) % len(QUESTIONS)]


def expected(study: str, finding: str) -> float:
    """What a model expects of it: a number that stands nowhere else."""
    return (0.73 if finding == question(study) else 0.27) + 1e-4 * (int(study[1:]) % 100) / 100


def with_model(site: Workspace) -> Workspace:
    """With a small model in use."""
    from radia import registry
    from radia.model import Preprocessing, build, describe, save_checkpoint

    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=1)
    save_checkpoint(
        site.root / "model", model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.4), source="tests")
    )
    registry.register_champion(site, site.root / "model", description="for tests")
    return site


def _write_film(path: Path, film: np.ndarray) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    pixels = np.asarray(film, np.uint16) * 16
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation, dataset.WindowCenter, dataset.WindowWidth = "MONOCHROME2", 2048, 4096
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _write_tables(site: Workspace, names: list[str]) -> None:
    count = len(names)
    patients = [f"P{(number // 2) + 1:02d}" for number in range(count)]
    days = [date(2020, 1, 1) + timedelta(days=412 * (number % 2)) for number in range(count)]
    columns: dict[str, object] = {name: [None] * count for name in manifest.SCHEMA.names}
    columns |= {
        "image": [f"I-{name}" for name in names],
        "study": names,
        "patient": patients,
        "batch": BATCH,
        "site": "HND",
        "study_date": days,
        "rows": 160,
        "columns": 160,
        "source_sha256": "0" * 64,
        "pixel_sha256": "0" * 64,
        "shard": "shard",
        "row": 0,
        "exposure": 0.5,
        "contrast": 0.5,
        "saturation": 0.0,
        "perceptual_hash": "0" * 16,
    }
    manifest.write(pd.DataFrame(columns), site.manifest, batch=BATCH)
    outcomes = {"image": columns["image"], "study": names, "patient": patients, "outcome": "clean"}
    pd.DataFrame({**outcomes, "output": [f"{name}.dcm" for name in names]}).to_parquet(
        site.clean / BATCH / "outcomes.parquet"
    )
    given = pd.DataFrame(0.0, index=names, columns=list(FINDINGS)).rename_axis("study").reset_index()
    known = pd.DataFrame(
        {finding: [expected(name, finding) for name in names] for finding in FINDINGS},
        index=pd.Index(names, name="study"),
    ).reset_index()
    ranked = known.melt("study", var_name="finding", value_name="probability").rename(columns={"study": "id"})
    ranked = ranked.sort_values("probability", ascending=False, kind="stable").assign(given=0.0)
    ranked["rank"] = np.arange(1, len(ranked) + 1)
    for folder, name, table in (
        (site.labels, "given", given),
        (site.suspects, "probabilities", known),
        (site.suspects, "suspects", ranked),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / f"{name}.parquet")


def _write_queue(site: Workspace, names: list[str], repeats: int) -> None:
    evaluation = [name for number, name in enumerate(names) if number % 2 or number < 2 * repeats]
    rows = [(name, "evaluation" if name in evaluation else "cleaning") for name in names]
    rows += [(name, "repeat") for name in evaluation[:repeats]]
    queue = pd.DataFrame(rows, columns=["id", "queue"]).assign(draw=1)
    queue["sampling_probability"] = np.where(queue["queue"] == "evaluation", 0.4321, np.nan)
    design = pd.DataFrame({"draw": 1, "id": names, "sampling_probability": 0.4321})
    site.reads.mkdir(parents=True)
    queue.to_parquet(site.read_queue)
    design.to_parquet(site.read_designs)
