"""Kill -9 anywhere between intake and manifest: the next run completes, and no image is lost or doubled."""

import os
import signal
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from radia import manifest
from radia.dicom.deidentify import deidentify_tree
from radia.images import ImageStore, add_batch
from radia.intake import receipts, take_folder
from radia.settings import DeidentifySettings, ScaleSettings

FILES, MOMENTS = 8, 50
CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
"""The audit events of operations that change what lies on the disk; `open` where it is for writing."""
KEY = bytes(range(32))
SETTINGS = DeidentifySettings(clean_pixels=False, workers=1)
ONE = ScaleSettings(workers=1)


def write_radiograph(path: Path, number: int, *, study: int | None = None) -> None:
    """Two dark lungs beside a bright spine, of one patient and study each unless they are told."""
    whose = number if study is None else study
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    gray = np.where(np.abs(x - 0.5) < 0.42, 0.6, 0.15) + 0.15 * y
    for middle in (0.3, 0.7):
        gray[((x - middle) / 0.13) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1] -= 0.4
    gray[np.abs(x - 0.5) < 0.05] += 0.1 + number / 100
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"1.2.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.4.{whose}", f"1.2.5.{number}"
    dataset.PatientID, dataset.PatientName, dataset.AccessionNumber = f"T{whose}", "Essai^Un", f"V{whose}"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.StudyDate, dataset.Rows, dataset.Columns = "20260115", 64, 64
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation, dataset.WindowCenter, dataset.WindowWidth = "MONOCHROME2", 128, 256
    dataset.PixelData = (gray * 255).astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def run_through(inbox: Path, data: Path) -> None:
    """Intake to manifest, each batch that has no manifest yet."""
    take_folder(inbox, data / "landing", today=date(2026, 11, 23))
    for receipt in receipts(data / "landing"):
        batch, clean = receipt.batch, data / "clean" / receipt.batch
        if (data / "manifest" / f"{batch}.parquet").exists():
            continue
        outcomes = deidentify_tree(data / "landing" / batch / "files", clean, key=KEY, settings=SETTINGS)
        index = add_batch(clean, data / "images", batch=batch, side=32, shard_bytes=4 * 32**2, scale=ONE)
        rows = manifest.build(clean, outcomes, index, batch=batch, site=receipt.site)
        manifest.write(rows, data / "manifest", batch=batch)


class Operations:
    """Counts what this process does to files below a folder, and kills the process at the one that is asked for."""

    def __init__(self, below: Path) -> None:
        self.below, self.done, self.fatal = str(below), 0, -1
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(self.below):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if self.done == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1


def in_a_child(inbox: Path, data: Path, *, killed_at: int = -1) -> int | None:
    """Runs in a process of its own; the operations it did, or None where it was killed at one of them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            operations = Operations(data)
            operations.fatal = killed_at
            run_through(inbox, data)
            os.write(writer, str(operations.done).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        done = answer.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert done, "the run failed in its process"
    return int(done)


def result(data: Path) -> pd.DataFrame:
    return manifest.load(data / "manifest").drop(columns=["batch", "shard", "row"])


@pytest.mark.filterwarnings("ignore:This process.*fork")
def test_killed_at_any_operation_on_files_no_image_is_lost_or_doubled(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    for number in range(FILES):
        write_radiograph(inbox / ("HND" if number % 2 else "HVD") / f"{number}.dcm", number)
    run_through(inbox, tmp_path / "whole")
    operations = in_a_child(inbox, tmp_path / "counted")
    assert operations is not None
    assert operations >= MOMENTS

    rng = np.random.default_rng(0)
    for number, moment in enumerate(rng.choice(operations, MOMENTS, replace=False)):
        data = tmp_path / f"killed{moment}"
        assert in_a_child(inbox, data, killed_at=int(moment)) is None
        if number % 5 == 0:  # and perhaps once more, where it goes on
            in_a_child(inbox, data, killed_at=int(rng.integers(operations)))
        run_through(inbox, data)
        pd.testing.assert_frame_equal(result(data), result(tmp_path / "whole"))
        store = ImageStore(data / "images")
        assert sorted(store.ids) == sorted(result(data)["image"])
        for batch in {receipt.batch for receipt in receipts(data / "landing")}:
            store.verify(batch)
