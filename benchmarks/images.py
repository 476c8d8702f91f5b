"""Images and manifest: each claim against its rival in the same run. `--quick` for a first look, `--only NAME` for one.

reading     random batches of 64 images at 512² from shards, against the same images as PNG files through PIL
decoding    files to images (the header, LUTs, chest check, letterbox, measures, digest), against decoding pixels alone
workers     a batch on 2 processes, against 1
manifest    1,000,000 simulated rows: build, check and join with labels; and a batch more at 1,000 and at 1,000,000
duplicates  a batch of 1,000 against 1,000,000 images by 64 bits, against a search tree
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation

from radia import images, manifest
from radia.dicom import container
from radia.dicom.pixels import encode_lossless
from radia.findings import FINDINGS
from radia.image_quality import MOST_HASH_BITS, close_pairs
from radia.images import ImageStore, add_batch, prepare
from radia.settings import ScaleSettings

SYNTAXES = {
    "explicit little endian": container.EXPLICIT,
    "RLE": container.RLE,
    "JPEG lossless SV1": container.JPEG_LOSSLESS_SV1,
    "JPEG-LS": container.JPEG_LS,
    "JPEG 2000 lossless": container.JPEG_2000_LOSSLESS,
    "JPEG baseline, 8 bits": container.JPEG_BASELINE,
}


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of the CPU time of this process: what other programs do at the same time does not count."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def chests(count: int, side: int) -> list[np.ndarray]:
    """Phantoms of the embedded hospital, 12 bits."""
    from radia.synthetic.phantom import examples

    shown = examples(count, 0, side=min(side, 512))
    rng = np.random.default_rng(0)
    large = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) for image in shown]
    return [np.clip(image * 16.0 + rng.normal(0, 12, image.shape), 0, 4095).astype(np.uint16) for image in large]


def write_dicom(path: Path, pixels: np.ndarray, syntax: str, number: int) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"1.2.3.{number}"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    if syntax == container.JPEG_BASELINE:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.WindowCenter, dataset.WindowWidth = 128, 256
        buffer = BytesIO()
        Image.fromarray((pixels // 16).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        written, value = syntax, [buffer.getvalue()]
    else:
        written, value = encode_lossless(pixels, syntax, bits=12, allocated=16)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = written
    dataset.PixelData = encapsulate(value) if isinstance(value, list) else value
    dataset["PixelData"].VR = "OW"
    dataset["PixelData"].is_undefined_length = isinstance(value, list)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


# --- reading --------------------------------------------------------------------------------------------------------


def reading(folder: Path, quick: bool) -> None:
    side, count = 512, 256 if quick else 1024
    shown = [np.asarray((pixels // 16), np.uint8) for pixels in chests(min(count, 64), side)]
    rng = np.random.default_rng(0)
    with closing(images._Catalogue(folder / "images")):
        pass
    batch = folder / "images" / "A-20260101-1"
    batch.mkdir(parents=True)
    writer = images._ShardWriter(batch, batch.name, rows_per_shard=10**6)
    for number in range(count):
        pixels = np.roll(shown[number % len(shown)], number, axis=1)
        writer.add(images.Prepared(f"I{number}", pixels))
        (folder / "png").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "png" / f"I{number}.png")
    table = writer.close().replace_schema_metadata({b"radia.side": str(side).encode()})
    images.pq.write_table(table, batch / images.INDEX)
    store = ImageStore(folder / "images")
    draws = [rng.choice(store.ids, 64) for _ in range(10)]

    def through_pil(ids: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(Image.open(folder / "png" / f"{image}.png")) for image in ids])

    assert np.array_equal(store.read(draws[0]), through_pil(draws[0]))
    store.read(store.ids)
    shard = seconds(lambda: [store.read(ids) for ids in draws], 9) / 640
    png = seconds(lambda: [through_pil(ids) for ids in draws[:2]], 3) / 128
    print(f"reading: shards {1 / shard:,.0f} img/s, PNG {1 / png:,.0f} img/s: {png / shard:.0f}x (one core, in memory)")


# --- decoding -------------------------------------------------------------------------------------------------------


def decoding(folder: Path, quick: bool) -> None:
    for side in (512,) if quick else (512, 2048):
        pixels = chests(4 if quick else 6, side)
        for name, syntax in SYNTAXES.items():
            paths = [folder / name / str(side) / f"{number}.dcm" for number in range(len(pixels))]
            for number, path in enumerate(paths):
                write_dicom(path, pixels[number], syntax, number)
            bad = [reason for path in paths if (reason := prepare(path, 384).reason)]
            assert not bad, bad

            def plain(paths: list[Path] = paths) -> None:
                for path in paths:
                    _ = pydicom.dcmread(path).pixel_array

            def whole(paths: list[Path] = paths) -> None:
                for path in paths:
                    prepared = prepare(path, 384)
                    assert prepared.pixels is not None
                    hashlib.sha256(prepared.pixels.tobytes()).digest()

            repeats = 3 if side > 1000 else 7
            decode, all_of_it = seconds(plain, repeats) / len(paths), seconds(whole, repeats) / len(paths)
            print(
                f"decoding: {side:4d}² {name:22s} pixels {decode * 1e3:6.1f} ms, image {all_of_it * 1e3:6.1f} ms: "
                f"{all_of_it / decode:.2f}x"
            )


# --- workers --------------------------------------------------------------------------------------------------------


def workers(folder: Path, quick: bool) -> None:
    count, side = (200, 512) if quick else (600, 512)
    pixels = chests(12, side)
    kinds = [container.JPEG_LS, container.JPEG_2000_LOSSLESS, container.EXPLICIT]
    clean = folder / "clean"
    for number in range(count):
        write_dicom(clean / f"I{number}.dcm", np.roll(pixels[number % 12], number, 1), kinds[number % 3], number)
    wall = {}
    for number_of in (1, 2):
        start = time.perf_counter()
        index = add_batch(
            clean,
            folder / f"images{number_of}",
            batch="A-1-1",
            side=384,
            shard_bytes=10**9,
            scale=ScaleSettings(workers=number_of),
        )
        wall[number_of] = time.perf_counter() - start
        assert len(index) == count
    print(
        f"workers: {count} files of {side}² (JPEG-LS, JPEG 2000, uncompressed): 1 process {wall[1]:.1f} s, "
        f"2 processes {wall[2]:.1f} s: {wall[1] / wall[2]:.2f}x (wall time: wants 2 idle cores)"
    )


# --- manifest -------------------------------------------------------------------------------------------------------


def simulated(start: int, count: int, batch: str) -> pd.DataFrame:
    """Manifest rows as of `count` images, two a study."""
    rng = np.random.default_rng(start)
    number = np.arange(start, start + count)
    ages = pd.array(rng.integers(0, 91, count), "Int16")
    return pd.DataFrame(
        {
            "image": _names("I", number),
            "study": _names("S", number // 2),
            "patient": _names("P", number // 4),
            "accession": _names("N", number // 2),
            "batch": batch,
            "site": batch.split("-")[0],
            "view": rng.choice(["AP", "PA"], count),
            "sex": rng.choice(["F", "M"], count),
            "age": ages,
            "age_band": [manifest.age_band(int(age)) for age in ages],
            "manufacturer": "Simulated",
            "model": "S1",
            "study_date": date(2026, 1, 1),
            "rows": 2048,
            "columns": 2048,
            "bits": pd.array([12] * count, "Int16"),
            "photometric": "MONOCHROME2",
            "transfer_syntax": container.JPEG_LS,
            "source_sha256": [f"{n:064x}" for n in number],
            "pixel_sha256": [f"{n:064x}" for n in number],
            "shard": "shard-00000.u8",
            "row": np.arange(count),
            "exposure": rng.uniform(0.3, 0.7, count),
            "contrast": rng.uniform(0.5, 0.9, count),
            "saturation": rng.uniform(0, 0.05, count),
            "perceptual_hash": [f"{h:016x}" for h in rng.integers(0, 2**63, count)],
        }
    )


def _names(letter: str, numbers: np.ndarray) -> list[str]:
    """A letter and 16 letters of the pseudonyms' alphabet."""
    alphabet = np.frombuffer(b"BCDFGHJKLMNPQRST", np.uint8)
    digits = (numbers[:, None] >> (4 * np.arange(15, -1, -1))) & 15
    return [letter + row.tobytes().decode() for row in alphabet[digits]]


def manifest_of_a_million(folder: Path, quick: bool) -> None:
    """CPU time of this process, Great Expectations' import included; peak of memory."""
    total, a_batch = (50_000 if quick else 1_000_000), 10_000
    where, spent = folder / "manifest", {}
    clock = time.process_time

    batches = [
        (f"A-20260101-{at // a_batch}", simulated(at, a_batch, f"A-20260101-{at // a_batch}"))
        for at in range(0, total, a_batch)
    ]
    start = clock()
    for name, rows in batches:
        manifest.write(rows, where, batch=name)
    spent["write"] = clock() - start
    del batches

    start = clock()
    rows = manifest.load(where)
    spent["load"] = clock() - start
    given = pd.DataFrame({"study": rows["study"].unique()}).assign(**dict.fromkeys(FINDINGS, 0.0))
    given.to_parquet(folder / "given.parquet")
    start = clock()
    joined = manifest.query(
        where,
        'SELECT count(*) AS n, avg("Edema") AS e FROM manifest JOIN labels USING (study)',
        tables={"labels": folder / "given.parquet"},
    )
    merged = rows.merge(given, on="study", how="left")
    spent["join"] = clock() - start
    assert int(joined["n"][0]) == len(merged) == total
    del merged

    start = clock()
    _check(rows, given)
    spent["check"] = clock() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    steps = ", ".join(f"{name} {taken:.1f} s" for name, taken in spent.items())
    print(f"manifest: {total:,} rows: {steps}: {sum(spent.values()):.1f} s of CPU, peak {peak:.1f} GB")
    _one_batch_more(folder, where)


def _check(rows: pd.DataFrame, given: pd.DataFrame) -> None:
    from radia.quality import check
    from radia.settings import QualitySettings

    check(rows, given, settings=QualitySettings())


def _one_batch_more(folder: Path, full: Path) -> None:
    """A batch of 1,000 into a manifest of 1,000 rows and into the full one."""
    small = folder / "small"
    manifest.write(simulated(0, 1000, "A-20260101-0"), small, batch="A-20260101-0")
    more = simulated(10**7, 1000, "B-20260101-1")
    taken = {}
    for name, where in (("1,000", small), ("all", full)):
        taken[name] = seconds(lambda where=where: manifest.write(more, where, batch="B-20260101-1"), 15)
    print(
        f"manifest: a batch of 1,000 more: {taken['1,000'] * 1e3:.1f} ms at 1,000 rows, "
        f"{taken['all'] * 1e3:.1f} ms at all rows: {taken['all'] / taken['1,000']:.2f}x"
    )


# --- near-duplicates ------------------------------------------------------------------------------------------------


def duplicates(folder: Path, quick: bool) -> None:
    """A batch of 1,000 against all others by 64 bits, exactly, against a search tree over the same bits."""
    from sklearn.neighbors import BallTree

    total, new = (100_000 if quick else 1_000_000), 1000
    hashes = np.random.default_rng(0).integers(0, 2**63, total, dtype=np.uint64)
    blocks = seconds(lambda: list(close_pairs(hashes, since=total - new)), 1)
    few = min(total, 100_000)
    bits = np.unpackbits(hashes[:few].view(np.uint8).reshape(few, 8), axis=1)
    tree = BallTree(bits, metric="hamming")
    asked = 20
    walked = seconds(lambda: tree.query_radius(bits[-asked:], MOST_HASH_BITS / 64), 1) / asked / few
    pairs = new * total
    print(
        f"duplicates: {new:,} new images against {total:,}: {blocks:.1f} s of CPU, {pairs / blocks / 1e6:,.0f} million "
        f"pairs/s; a ball tree {1 / walked / 1e6:,.0f} million: {walked * pairs / blocks:.0f}x"
    )


BENCHMARKS = {
    "reading": reading,
    "decoding": decoding,
    "workers": workers,
    "manifest": manifest_of_a_million,
    "duplicates": duplicates,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=BENCHMARKS)
    chosen = parser.parse_args()
    if chosen.only:
        with TemporaryDirectory() as folder:
            BENCHMARKS[chosen.only](Path(folder), chosen.quick)
        return
    for name in BENCHMARKS:  # one process each, so that the peak of memory is its own
        quick = ["--quick"] if chosen.quick else []
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, "--only", name, *quick], check=True, env=one_thread)


if __name__ == "__main__":
    main()
