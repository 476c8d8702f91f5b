"""Kill -9 anywhere between intake and manifest: the next run completes, and no image is lost or doubled."""

import os
import signal
import time
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
KEY = bytes(range(32))
SETTINGS = DeidentifySettings(clean_pixels=False, workers=1)
ONE = ScaleSettings(workers=1)


def write_radiograph(path: Path, number: int) -> None:
    """Two dark lungs beside a bright spine, of one patient each."""
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    gray = np.where(np.abs(x - 0.5) < 0.42, 0.6, 0.15) + 0.15 * y
    for middle in (0.3, 0.7):
        gray[((x - middle) / 0.13) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1] -= 0.4
    gray[np.abs(x - 0.5) < 0.05] += 0.1 + number / 100
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"1.2.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.4.{number}", f"1.2.5.{number}"
    dataset.PatientID, dataset.PatientName, dataset.AccessionNumber = f"T{number}", "Essai^Un", f"V{number}"
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


def killed_after(seconds: float, inbox: Path, data: Path) -> bool:
    """Runs in a process of its own and kills it; says whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            run_through(inbox, data)
        finally:
            os._exit(0)
    time.sleep(seconds)
    running = os.waitpid(child, os.WNOHANG)[0] == 0
    if running:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return running


def result(data: Path) -> pd.DataFrame:
    return manifest.load(data / "manifest").drop(columns=["batch", "shard", "row"])


@pytest.mark.filterwarnings("ignore:This process.*fork")
def test_killed_at_random_moments_no_image_is_lost_or_doubled(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    for number in range(FILES):
        write_radiograph(inbox / ("HND" if number % 2 else "HVD") / f"{number}.dcm", number)
    run_through(inbox, tmp_path / "whole")
    start = time.monotonic()
    run_through(inbox, tmp_path / "timed")
    duration = time.monotonic() - start

    rng = np.random.default_rng(0)
    killed = 0
    for moment in range(MOMENTS):
        data = tmp_path / f"data{moment // 5}"  # five kills in a row hit the same folder
        killed += killed_after(float(rng.uniform(0, 0.9 * duration)), inbox, data)
        if moment % 5 == 4:
            run_through(inbox, data)
            pd.testing.assert_frame_equal(result(data), result(tmp_path / "whole"))
            store = ImageStore(data / "images")
            assert sorted(store.ids) == sorted(result(data)["image"])
            for batch in {receipt.batch for receipt in receipts(data / "landing")}:
                store.verify(batch)
    assert killed >= MOMENTS // 3
