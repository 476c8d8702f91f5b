"""De-identification measured: leaks, header speed against pydicom and rivals, memory. (Text in pixels: burned_in.py.)

usage: python benchmarks/deidentify.py [leaks|headers|memory|scale ...]   (all, where none is named)

Each figure is a ratio or a share from one run on this machine. Other tools are run by the Python that $RADIA_RIVALS
names, which may live in an environment of its own (`pip install dicom-anonymizer dentdeid python-gdcm`); what it lacks
is named as absent.
"""

from __future__ import annotations

import hashlib
import json
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
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radia.dicom.deidentify import Engine, deidentify_tree
from radia.errors import Refusal
from radia.settings import DeidentifySettings
from tests.spec.hiding_elsewhere import KINDS, SYNTAXES, build, leaked
from tests.unit.test_dicom_burned_in import body

KEY = bytes(range(32))
HEADERS_ONLY = DeidentifySettings(clean_pixels=False, workers=1)


def leaks(count: int = 2100, compared: int = 350) -> None:
    """Hard files of one to four kinds, the kinds and syntaxes in turn; the first of them, each of one kind, also by
    other tools.
    """
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
    _leaks_of_rivals(kinds, compared)


def _leaks_of_rivals(kinds: list[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target, secrets = Path(folder, "in"), Path(folder, "out"), {}
        source.mkdir()
        for number in range(count):
            raw, held = build([kinds[number % len(kinds)]], list(SYNTAXES)[number // len(kinds) % 6], number)
            (source / f"{number}.dcm").write_bytes(raw)
            secrets[f"{number}.dcm"] = held
        engine = Engine(KEY, HEADERS_ONLY)
        ours = {path.name: _cleaned(engine, path) for path in source.iterdir()}
        _report_leaks("radia", ours, secrets)
        for name in RIVALS:
            result = _rival(name, source, target, 1)
            if "absent" in result:
                print(f"leaks    {name}: {result['absent']}")
                continue
            _report_leaks(name, {path.name: path.read_bytes() for path in target.iterdir()}, secrets)


def _cleaned(engine: Engine, path: Path) -> bytes:
    try:
        return b"".join(map(bytes, engine.deidentify_file(path.read_bytes(), "0" * 64).pieces))
    except Refusal:
        return b""


def _report_leaks(name: str, outputs: dict[str, bytes], secrets: dict[str, set[str]]) -> None:
    written = {file: raw for file, raw in outputs.items() if raw}
    found = sum(bool(leaked(raw, secrets[file])) for file, raw in written.items())
    print(f"leaks    {name}: an identifier in {found} of {len(written)} outputs, of {len(secrets)} files")


def headers(count: int = 100, rounds: int = 5) -> None:
    """CPU of the header path, verification and audit included, over CPU of reading and writing the same files."""
    for side in (40, 512, 2000):
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            names = ["references", "original attributes", "private nested", "request attributes"]
            for number in range(count if side < 2000 else count // 5):
                raw, _ = build([names[number % 4]], list(SYNTAXES)[number % 2], number)
                (source / f"{number}.dcm").write_bytes(_enlarged(raw, side) if side > 40 else raw)
            files = sorted(source.iterdir())
            engine = Engine(KEY, HEADERS_ONLY)

            def ours(path: Path, target: Path = target, engine: Engine = engine) -> None:
                raw = path.read_bytes()
                clean = engine.deidentify_file(raw, hashlib.sha256(raw).hexdigest())
                with (target / path.name).open("wb") as file:
                    file.writelines(clean.pieces)
                json.dumps(asdict(clean.outcome))  # the account's line

            def round_trip(path: Path, target: Path = target) -> None:
                pydicom.dcmread(path).save_as(target / path.name)

            spent: dict[str, float] = {}
            for _ in range(rounds):  # in turn: what else the machine does meets both
                for name, clean in (("pydicom", round_trip), ("radia", ours)):
                    spent[name] = min(spent.get(name, float("inf")), _cpu(clean, files, target))
            base = spent["pydicom"]
            print(f"headers  {side} x {side}: pydicom's round trip {base / len(files) * 1000:.2f} ms a file")
            print(f"headers  {side} x {side}: radia {spent['radia'] / base:.2f} x pydicom")
            for name in RIVALS if side == 512 else ():
                result = _rival(name, source, target, 3)
                shown = (
                    result.get("absent") or f"{float(result['cpu']) / base:.2f} x pydicom, {result['failed']} failed"
                )
                print(f"headers  {side} x {side}: {name} {shown}")


RIVALS = ("dicom-anonymizer", "dentdeid", "gdcmanon")


def _rival(name: str, source: Path, target: Path, rounds: int) -> dict[str, Any]:
    """Another tool, run by the Python that $RADIA_RIVALS names (it holds the tools; this one, where none is named)."""
    script = Path(__file__).with_name("deidentify_rivals.py")
    python = os.environ.get("RADIA_RIVALS", sys.executable)
    done = subprocess.run(
        [python, script, name, source, target, str(rounds)], capture_output=True, text=True, check=False
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {"absent": done.stderr.splitlines()[-1]}


def _enlarged(raw: bytes, side: int, stored: np.ndarray | None = None) -> bytes:
    """The file with a larger image in place of its small one: noise, where none is given."""
    image = pydicom.dcmread(BytesIO(raw))
    image.Rows = image.Columns = side
    noise = np.random.default_rng(0).integers(0, 4096, (side, side), dtype="u2")
    image.PixelData = (noise if stored is None else stored).tobytes()
    out = BytesIO()
    image.save_as(out)
    return out.getvalue()


def _cpu(work: Callable[[Path], None], files: list[Path], target: Path) -> float:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    start = time.process_time()
    for path in files:
        work(path)
    return time.process_time() - start


def memory(count: int = 10_000) -> None:
    """Resident memory of one process over the files of a tree, of a few devices."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for number in range(count):
            kind = ("plain", "references", "request attributes")[number % 3]
            (source / f"{number}.dcm").write_bytes(build([kind], list(SYNTAXES)[number % 2], number)[0])
        process, held = psutil.Process(), {}

        def look(done: int, total: int) -> None:
            if done in (total // 10, total // 2, total):
                held[done] = process.memory_info().rss / 2**20

        deidentify_tree(source, Path(folder, "out"), key=KEY, settings=HEADERS_ONLY, progress=look)
    print("memory   " + ", ".join(f"{size:.0f} MiB after {done} files" for done, size in held.items()))


def scale(count: int = 800) -> None:
    """Wall time of one and of two processes on the same tree, text in pixels looked for."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for number in range(count):
            raw = build(["plain"], "explicit", number)[0]
            (source / f"{number}.dcm").write_bytes(_enlarged(raw, 512, body()))
        spent: dict[int, float] = {}
        cpu: dict[int, float] = {}
        for workers in (1, 2, 1, 2):
            settings = HEADERS_ONLY.model_copy(update={"clean_pixels": True, "workers": workers})
            target = Path(folder, "out")
            shutil.rmtree(target, ignore_errors=True)
            start, before = time.perf_counter(), sum(os.times()[:4])
            deidentify_tree(source, target, key=KEY, settings=settings)
            spent[workers] = min(spent.get(workers, float("inf")), time.perf_counter() - start)
            cpu[workers] = min(cpu.get(workers, float("inf")), sum(os.times()[:4]) - before)
        print(
            f"scale    two processes: {spent[1] / spent[2]:.2f} x one ({spent[1]:.1f} s, {spent[2]:.1f} s; CPU "
            f"{cpu[1]:.1f} s, {cpu[2]:.1f} s; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    parts = {"leaks": leaks, "headers": headers, "memory": memory, "scale": scale}
    for name in sys.argv[1:] or parts:
        parts[name]()
