"""De-identification measured: leaks, header speed against pydicom and rivals, text in pixels, memory.

usage: python benchmarks/deidentify.py [leaks|headers|text|memory|scale ...]   (all, where none is named)

Each figure is a ratio or a share from one run on this machine. Rivals that are not installed are named as absent:
`pip install dicom-anonymizer dentdeid`, and `gdcmanon` from libgdcm-tools.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radia.dicom.burned_in import find_text
from radia.dicom.deidentify import Engine, deidentify_tree
from radia.errors import Refusal
from radia.settings import DeidentifySettings
from tests.spec.hard_files import KINDS, SYNTAXES, build, leaked
from tests.unit.test_dicom_burned_in import body, covered, written

KEY = bytes(range(32))
HEADERS_ONLY = DeidentifySettings(clean_pixels=False, workers=1)


def leaks(count: int = 2000) -> None:
    """Hard files of one to four kinds, the kinds and syntaxes in turn."""
    engine, kinds, chance = Engine(KEY, HEADERS_ONLY), sorted(KINDS), random.Random(0)
    outcome: Counter[str] = Counter()
    for number in range(count):
        chosen = {kinds[number % len(kinds)], *chance.sample(kinds, chance.randint(0, 3))}
        raw, secrets = build(sorted(chosen), list(SYNTAXES)[number // len(kinds) % 6], number)
        try:
            out = b"".join(map(bytes, engine.deidentify_file(raw, "0" * 64).pieces))
        except Refusal as refusal:
            outcome[f"refused: {refusal.reason.value}"] += 1
            continue
        outcome["leaked" if leaked(out, secrets) else "clean"] += 1
    print(f"leaks    {count} hard files of {len(kinds)} kinds in {len(SYNTAXES)} syntaxes: {dict(outcome)}")


def headers(count: int = 120) -> None:
    """CPU of the header path, verification and audit included, over CPU of reading and writing the same files."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        target.mkdir()
        names = ["references", "original attributes", "private nested", "request attributes"]
        for number in range(count):
            raw, _ = build([names[number % 4]], list(SYNTAXES)[number % 2], number)
            (source / f"{number}.dcm").write_bytes(_enlarged(raw))
        files = sorted(source.iterdir())
        engine = Engine(KEY, HEADERS_ONLY)

        def ours(path: Path) -> None:
            import hashlib

            raw = path.read_bytes()
            with (target / path.name).open("wb") as file:
                file.writelines(engine.deidentify_file(raw, hashlib.sha256(raw).hexdigest()).pieces)

        def round_trip(path: Path) -> None:
            pydicom.dcmread(path).save_as(target / path.name)

        rivals: dict[str, Callable[[Path], None] | None] = {
            "pydicom round trip": round_trip,
            "radia": ours,
            "dicom-anonymizer": _dicom_anonymizer(target),
            "dentdeid": _dentdeid(source, target),
        }
        base = 0.0
        for name, clean in rivals.items():
            if clean is None:
                print(f"headers  {name}: not installed")
                continue
            clean(files[0])
            spent = min(_cpu(clean, files) for _ in range(3))
            base = base or spent
            print(f"headers  {name}: {spent / len(files) * 1000:.2f} ms a file, {spent / base:.2f} x pydicom")
        _gdcmanon(source, target, base)


def _enlarged(raw: bytes) -> bytes:
    """The file with an image of 512 x 512 pixels in place of its small one."""
    image = pydicom.dcmread(BytesIO(raw))
    image.Rows = image.Columns = 512
    image.PixelData = np.random.default_rng(0).integers(0, 4096, (512, 512), dtype="u2").tobytes()
    out = BytesIO()
    image.save_as(out)
    return out.getvalue()


def _cpu(work: Callable[[Path], None], files: list[Path]) -> float:
    start = time.process_time()
    for path in files:
        work(path)
    return time.process_time() - start


def _dicom_anonymizer(target: Path) -> Callable[[Path], None] | None:
    if importlib.util.find_spec("dicomanonymizer") is None:
        return None
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file

    return lambda path: anonymize_dicom_file(str(path), str(target / path.name))


def _dentdeid(source: Path, target: Path) -> Callable[[Path], None] | None:
    if importlib.util.find_spec("dentdeid") is None:
        return None
    from dentdeid.config import Config  # type: ignore[import-not-found]
    from dentdeid.dicom.meta import deidentify_dataset  # type: ignore[import-not-found]

    def clean(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        deidentify_dataset(dataset, Config())
        dataset.save_as(target / path.name)

    return clean


def _gdcmanon(source: Path, target: Path, base: float) -> None:
    if shutil.which("gdcmanon") is None:
        print("headers  gdcmanon: not installed")
        return
    before = os.times().children_user
    subprocess.run(["gdcmanon", "--dumb", "-r", "-i", source, "-o", target, "--remove", "10,10"], check=False)
    spent = os.times().children_user - before
    print(f"headers  gdcmanon: {spent / base:.2f} x pydicom")


def text(count: int = 40) -> None:
    """Lines on soft shapes with noise, at full depth: found where nine tenths of a line are covered."""
    chance = random.Random(0)
    for side in (512, 1024, 2000):
        base = body(side, side)
        found, spent = 0, 0.0
        for _ in range(count if side < 2000 else count // 4):
            how = {
                "height": chance.choice([14, 16, 20, 32]),
                "at": (chance.randint(4, side - 330), chance.randint(4, side - 60)),
                "turned": 0,
                "base": base,
            }
            shade = int(np.median(base[how["at"][1] : how["at"][1] + 20, how["at"][0] : how["at"][0] + 200]))
            contrast = chance.choice([26, 40, 80, 150]) * 4095 // 255
            how["ink"] = shade + contrast if shade + contrast < 4095 else shade - contrast
            stored, box = written(f"TREMBLAY {chance.randint(10**5, 10**6)}", **how)
            start = time.process_time()
            found += covered(box, find_text(stored)) >= 0.9
            spent += time.process_time() - start
        lines = count if side < 2000 else count // 4
        start = time.process_time()
        clean = sum(box.area for box in find_text(base)) / base.size
        spent_clean = time.process_time() - start
        print(
            f"text     {side} x {side}: {found}/{lines} lines found, {spent / lines:.2f} CPU-s an image; "
            f"clean image: {clean:.4%} changed, {spent_clean:.2f} CPU-s"
        )


def memory(count: int = 2000) -> None:
    """Resident memory of one process over many files."""
    engine, process = Engine(KEY, HEADERS_ONLY), psutil.Process()
    raw = [build(["references"], syntax, number)[0] for number, syntax in enumerate(SYNTAXES)]
    held = []
    for number in range(count):
        engine.deidentify_file(raw[number % len(raw)], "0" * 64)
        if number in (count // 4, count - 1):
            held.append(process.memory_info().rss / 2**20)
    print(f"memory   {held[0]:.0f} MiB after {count // 4} files, {held[1]:.0f} MiB after {count}")


def scale(count: int = 400) -> None:
    """Wall time of one and of two processes on the same tree."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for number in range(count):
            (source / f"{number}.dcm").write_bytes(build(["plain"], "jpeg 2000", number)[0])
        spent = {}
        for workers in (1, 2):
            settings = HEADERS_ONLY.model_copy(update={"clean_pixels": True, "workers": workers})
            start = time.perf_counter()
            deidentify_tree(source, Path(folder, f"out{workers}"), key=KEY, settings=settings)
            spent[workers] = time.perf_counter() - start
        print(f"scale    two processes: {spent[1] / spent[2]:.2f} x one ({spent[1]:.1f} s, {spent[2]:.1f} s)")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    parts = {"leaks": leaks, "headers": headers, "text": text, "memory": memory, "scale": scale}
    for name in sys.argv[1:] or parts:
        parts[name]()
