"""Sustained intake: small DICOM objects from several senders at once, through the receiver and its batches.

Prints for each tenth of the objects the rate and the receiver's memory, and at its end how many of the acknowledged
objects are in batches (all, or the benchmark ends with status 1). `python benchmarks/receiver.py --objects 100000`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

TITLE = "MODALITY"


def radiograph(number: int, side: int) -> Dataset:
    """A small DX object of its own pixels and patient."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.4.{number}"
    dataset.PatientID, dataset.PatientName, dataset.Modality = f"T{number}", "Essai^Un", "DX"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8).tobytes()
    return dataset


def send(port: int, numbers: range, side: int, an_association: int) -> tuple[int, int]:
    """A sender's work, in a process of its own: associations of so many objects.

    As PACS do, it sends again what was not acknowledged. (acknowledged, sent again)
    """
    from pynetdicom import AE

    entity = AE(ae_title=TITLE)
    entity.add_requested_context(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    waiting, again = list(numbers), 0
    while waiting:
        association = entity.associate("127.0.0.1", port, ae_title="RADIA")
        for number in waiting[:an_association]:
            if not association.is_established:
                again += 1
                break
            answer = association.send_c_store(radiograph(number, side))
            if "Status" not in answer or answer.Status != 0:
                again += 1
                break
            waiting.remove(number)
        if association.is_established:
            association.release()
    return len(numbers), again


def serve(data: Path, port: int) -> subprocess.Popen[bytes]:
    """`radia serve receiver` in a data folder."""
    receiver = {"senders": {TITLE: "HND"}, "min_free_bytes": 0, "window_seconds": 60, "port": port}
    (data / "params.yaml").write_text(yaml.safe_dump({"intake": {"receiver": receiver}}))
    command = [sys.executable, "-m", "radia", "serve", "receiver", "--port", str(port)]
    environment = {**os.environ, "RADIA_DATA": str(data), "OMP_NUM_THREADS": "1"}
    with (data / "receiver.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not [one for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]:
        assert process.poll() is None, "the receiver did not start"
        assert time.monotonic() < deadline, "the receiver did not listen within two minutes"
        time.sleep(0.2)
    return process


def size_of_one(side: int) -> int:
    """Bytes of one object as it travels."""
    dataset, buffer = radiograph(1, side), BytesIO()
    write_file_meta_info(buffer, dataset.file_meta, enforce_standard=False)
    return len(buffer.getvalue()) + len(dataset.PixelData)


def main() -> int:
    """Runs it in a folder of its own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--objects", type=int, default=5_000)
    options.add_argument("--senders", type=int, default=4)
    options.add_argument("--an-association", type=int, default=100)
    options.add_argument("--side", type=int, default=32, help="rows and columns")
    options.add_argument("--port", type=int, default=21112)
    given = options.parse_args()
    data = Path(tempfile.mkdtemp(prefix="radia-receiver-"))
    process = serve(data, given.port)
    watched = psutil.Process(process.pid)
    begun, acknowledged, again = time.monotonic(), 0, 0
    print(f"{given.objects:,} objects of {size_of_one(given.side):,} bytes, {given.senders} senders")
    with get_context("spawn").Pool(given.senders) as pool:
        for tenth in range(10):
            part, started, busy = (
                range(given.objects * tenth // 10, given.objects * (tenth + 1) // 10),
                time.monotonic(),
                0.0,
            )
            before = sum(watched.cpu_times()[:2])
            shares = [part[sender :: given.senders] for sender in range(given.senders)]
            work = [(given.port, share, given.side, given.an_association) for share in shares]
            for sent, repeated in pool.starmap(send, work):
                acknowledged, again = acknowledged + sent, again + repeated
            seconds, busy = time.monotonic() - started, sum(watched.cpu_times()[:2]) - before
            memory = watched.memory_info().rss / 2**20
            print(
                f"{acknowledged:>9,} acknowledged  {len(part) / seconds:7.1f}/s  "
                f"{1000 * busy / len(part):5.2f} ms of the receiver's CPU each  {memory:6.0f} MiB",
                flush=True,
            )
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=600)
    from radia.intake import receipts

    kept = [file for receipt in receipts(data / "landing") for file in receipt.files]
    digests = {file.sha256 for file in kept}
    with ThreadPoolExecutor(2) as readers:
        whole = sum(readers.map(_is_whole, (data / "landing").glob("*/files/*")))
    names = {file.source_name for file in kept}
    lost = acknowledged - len(names)
    print(
        f"{acknowledged:,} acknowledged, {len(names):,} in {len(receipts(data / 'landing'))} batches, {whole:,} whole "
        f"files, {len(digests):,} contents, {lost} lost, {again} sent again, {time.monotonic() - begun:.0f} s"
    )
    shutil.rmtree(data)
    return 0 if lost == 0 and whole == len(digests) == given.objects else 1


def _is_whole(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name


if __name__ == "__main__":
    sys.exit(main())
