"""Freezing and versioning a large snapshot: how long an unchanged one takes, and what added images store.

    python benchmarks/snapshot.py [--images 100000] [--batch 1000] [--added 1000] [--bytes 4096] [--folder DIR]

Makes batches of random shards (their size is what the images would have) with index and manifest, freezes and versions
them, does so again with nothing changed, and again with one batch more. "Stored" is the growth of DVC's cache; what was
added are the bytes of the new batch's folder and of the part of the snapshot that speaks of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radia.findings import FINDINGS
from radia.settings import SnapshotSettings, quiet_dependencies
from radia.snapshot import freeze, load, version


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall-clock seconds, CPU seconds of this process and its children, and what came of it."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    result = work()
    return time.perf_counter() - start, sum(os.times()[:4]) - before, result


def write_batch(archive: Path, name: str, first: int, count: int, size: int) -> pd.DataFrame:
    """One batch: a shard of random bytes and its index. Returns its rows of the manifest."""
    chance = np.random.default_rng(first)
    folder = archive / "images" / name
    folder.mkdir(parents=True)
    (folder / "shard-00000.u8").write_bytes(chance.bytes(count * size))
    ids = range(first, first + count)
    rows = pd.DataFrame({"image": [f"I{number:016d}" for number in ids]})
    rows["study"] = [f"S{number:016d}" for number in ids]
    rows["patient"] = [f"P{number // 2:016d}" for number in ids]
    rows["site"], rows["sex"], rows["age_band"], rows["view"], rows["manufacturer"] = "HND", "F", "60-79", "PA", "X"
    rows["pixel_sha256"] = [hashlib.sha256(b"p%d" % number).hexdigest() for number in ids]
    rows["source_sha256"] = [hashlib.sha256(b"s%d" % number).hexdigest() for number in ids]
    rows["batch"], rows["shard"], rows["row"] = name, "shard-00000.u8", range(count)
    rows[["image", "shard", "row"]].to_parquet(folder / "index.parquet", index=False)
    return rows


def labels_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Labels that do not change when images are added: a study's are drawn from its number."""
    numbers = (
        rows["row"].to_numpy()[:, None] + rows["batch"].map(lambda name: len(name) + hash_of(name)).to_numpy()[:, None]
    )
    drawn = np.array([1.0, 0.0, np.nan])[(numbers * np.arange(1, 2 * len(FINDINGS), 2)) % 3]
    return pd.DataFrame(drawn, columns=list(FINDINGS)).assign(study=rows["study"].to_numpy())


def hash_of(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0]


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 100_000), ("batch", 1000), ("added", 1000), ("bytes", 4096)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    quiet_dependencies()
    with tempfile.TemporaryDirectory(dir=given.folder) as holder:
        archive = Path(holder) / "archive"
        parts = [
            write_batch(archive, f"HND-{first // given.batch:05d}", first, given.batch, given.bytes)
            for first in range(0, given.images, given.batch)
        ]
        cache = archive / ".dvc" / "cache"

        def taken(rows: pd.DataFrame) -> str:
            snapshot = freeze(rows, labels_of(rows), settings=SnapshotSettings(), folder=archive / "snapshots")
            version(archive, snapshot.digest)
            return snapshot.digest

        rows = pd.concat(parts, ignore_index=True)
        wall, cpu, digest = timed(lambda: taken(rows))
        print(
            f"frozen and versioned: {len(rows):,} images, {size_of(cache) / 1e6:,.0f} MB: {wall:.1f} s ({cpu:.1f} CPU)"
        )
        wall, cpu, _ = timed(lambda: version(archive, digest))
        print(f"versioning it again, unchanged: {wall:.2f} s ({cpu:.2f} s of CPU)")
        wall, cpu, again = timed(lambda: taken(rows))
        assert again == digest
        print(f"freezing and versioning it again, unchanged: {wall:.2f} s ({cpu:.2f} s of CPU)")
        before = size_of(cache)
        more = write_batch(archive, "HND-new", given.images, given.added, given.bytes)
        wall, cpu, newer = timed(lambda: taken(pd.concat([rows, more], ignore_index=True)))
        stored, pixels = size_of(cache) - before, size_of(archive / "images" / "HND-new")
        parts_of = [
            archive / "snapshots" / newer / f"{kind}.parquet" / "HND-new.parquet" for kind in ("images", "labels")
        ]
        added = pixels + sum(path.stat().st_size for path in parts_of)
        print(
            f"with {given.added:,} images more: {wall:.1f} s ({cpu:.1f} CPU); {stored:,} bytes stored, {added:,} "
            f"added: {stored / added:.4f}x; {stored / pixels:.4f}x the bytes of the images alone"
        )
        assert load(archive / "snapshots", digest).digest == digest


if __name__ == "__main__":
    main()
