"""The ledger at length: appends, verification with and without the key, and traces over many events and images.

    python benchmarks/ledger.py [--events 1000000] [--images 1000000] [--writers 8] [--each 1000] [--folder DIR]

Prints each figure in wall-clock and in CPU time, and for verification its ratio to the plainest rival: sqlite3, json
and hashlib in one loop. `--folder` keeps what was made there, and a second call with it measures without making anew.
10,000,000 events take 5.4 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import secrets
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from radia.findings import FINDINGS
from radia.ledger import GENESIS, Ledger, canonical, chain
from radia.ledger.events import mac_of
from radia.trace import trace_image, trace_model, trace_patient, write_json
from radia.workspace import Workspace

SNAPSHOT = "5" * 64
KEY = hashlib.sha256(b"benchmark").digest()
PEOPLE = [f"Dr {number}" for number in range(60)]


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall-clock seconds, CPU seconds of this process and its children, and what came of it."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    result = work()
    return time.perf_counter() - start, sum(os.times()[:4]) - before, result


def append_many(url: str, name: str, count: int) -> None:
    ledger = Ledger(url, key=KEY)
    for number in range(count):
        ledger.append("predict", actor=name, once=f"{name}{number}", subjects=[f"I{number}"], code="bench")


def fill(path: Path, count: int, patients: int) -> None:
    """Writes `count` events straight into the tables, as Ledger.append would one by one."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -3000000")
    last, at = GENESIS, "2026-01-01T00:00:00.000000Z"
    rows, mentions = [], []
    for number in range(1, count + 1):
        who, person = f"P{number % patients:016d}", PEOPLE[number % len(PEOPLE)]
        entry = {"format": 1, "action": "accessed", "actor": person, "at": at, "code": "bench", "sequence": number}
        if number == count - 2:
            entry |= {"action": "snapshot", "outputs": {"snapshot": SNAPSHOT}}
        elif number == count - 1:
            entry |= {"action": "register", "inputs": {"snapshot": SNAPSHOT}, "outputs": {"cxr-candidate/1": "c" * 32}}
        else:
            entry |= {"subjects": [who], "parameters": {"screen": "review"}}
        body = canonical(entry)
        hash_ = chain(last, body)
        rows.append((number, at, entry["action"], person, None, body, last, hash_, mac_of(KEY, hash_)))
        terms = set(entry.get("subjects", ()))
        for table in (entry.get("inputs", {}), entry.get("outputs", {})):
            terms |= {*table, *table.values()}
        mentions += [(number, entry["action"], term) for term in sorted(terms)]
        last = hash_
        if len(rows) == 50_000 or number == count:
            database.executemany("INSERT INTO ledger_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            database.executemany("INSERT INTO ledger_mentions (sequence, action, term) VALUES (?, ?, ?)", mentions)
            database.commit()
            rows, mentions = [], []
    database.close()


def write_images(site: Workspace, count: int, patients: int) -> None:
    """A manifest of batches of 10,000 images, what de-identification did to each, and one snapshot that holds all."""
    chance = np.random.default_rng(0)
    ids = np.sort([f"I{number:016d}" for number in range(count)])
    rows = pd.DataFrame({"image": ids, "study": [f"S{number // 2:016d}" for number in range(count)]})
    rows["patient"] = [f"P{number % patients:016d}" for number in range(count)]
    rows["site"], rows["split"] = "HND", chance.choice(["train", "validation", "test"], count)
    rows["batch"] = [f"HND-20260101-{number // 10_000}" for number in range(count)]
    rows["source_sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in ids]
    rows["pixel_sha256"] = rows["source_sha256"].to_numpy()[::-1]
    folder = site.snapshots / SNAPSHOT
    (folder / "images.parquet").mkdir(parents=True)
    (folder / "labels.parquet").mkdir(parents=True)
    site.manifest.mkdir(parents=True)
    actions = json.dumps({f"({group:04x},0010)": "removed" for group in range(8, 20)})
    for batch, part in rows.groupby("batch"):
        part.to_parquet(folder / "images.parquet" / f"{batch}.parquet", index=False)
        part.drop(columns="split").to_parquet(site.manifest / f"{batch}.parquet", index=False)
        labels = pd.DataFrame({"study": part["study"].unique()})
        for finding in FINDINGS:
            labels[finding] = chance.choice([1.0, 0.0, np.nan], len(labels))
        labels.to_parquet(folder / "labels.parquet" / f"{batch}.parquet", index=False)
        outcomes = part[["source_sha256", "image"]].assign(outcome="clean", reason=None, actions=actions)
        (site.clean / batch).mkdir(parents=True)
        outcomes.to_parquet(site.clean / batch / "outcomes.parquet", index=False)


def plain_verify(path: Path) -> None:
    """The plainest check of the chain alone: no HMAC, no index, no columns."""
    last = GENESIS
    for body, hash_ in sqlite3.connect(path).execute("SELECT body, hash FROM ledger_events ORDER BY sequence"):
        json.loads(body)
        last = chain(last, body)
        assert last == hash_


def show_writers(holder: Path, writers: int, each: int) -> None:
    url = f"sqlite:///{holder}/writers.db"
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=append_many, args=(url, f"w{n}", each)) for n in range(writers)]
    took, _, _ = timed(lambda: [job.start() for job in jobs] and [job.join() for job in jobs])
    found = Ledger(url, key=KEY).verify().events
    assert found == writers * each, found
    print(f"{writers} writers x {each} events on SQLite: {took:.1f} s, one chain of {found:,}, none lost", flush=True)


def show_appends(holder: Path, long: Ledger, length: int) -> None:
    """One event to a short and to a long ledger in turn: neither has the quieter machine. Each names two terms."""
    short = Ledger(f"sqlite:///{holder}/short-{secrets.token_hex(4)}.db", key=KEY)
    found: dict[str, list[tuple[float, float]]] = {"short": [], "long": []}
    for _ in range(300):
        for name, ledger in (("short", short), ("long", long)):
            once, subject = secrets.token_hex(8), f"P{secrets.randbelow(10**6):016d}"
            wall, cpu, _ = timed(
                lambda ledger=ledger, once=once, subject=subject: ledger.append(  # type: ignore[misc]
                    "read", actor=PEOPLE[0], subjects=[subject], once=once, code="b"
                )
            )
            found[name].append((wall, cpu))
    middle = {
        name: [1e3 * statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in found.items()
    }
    least = {name: 1e3 * min(wall for wall, _ in values) for name, values in found.items()}
    print(
        f"append: median {middle['short'][0]:.2f} ms (least {least['short']:.2f}) to a ledger of some hundred events, "
        f"{middle['long'][0]:.2f} ms (least {least['long']:.2f}) to one of {length:,}: "
        f"{middle['long'][0] / middle['short'][0]:.2f}x",
        flush=True,
    )


def show_verification(path: Path, url: str, count: int) -> None:
    _, plain_cpu, _ = timed(lambda: plain_verify(path))
    print(f"a plain loop that checks the chain alone: {count / plain_cpu:,.0f} events/CPU-s", flush=True)
    for name, key in (("with the key", KEY), ("without the key", None)):
        ledger = Ledger(url, key=key, read_only=True)
        wall, cpu, proven = timed(ledger.verify)
        assert proven.authenticated == (key is not None)  # type: ignore[attr-defined]
        print(
            f"verify {name}: {proven.events:,} events, {count / wall:,.0f} events/s in {wall:.0f} s; "  # type: ignore[attr-defined]
            f"{count / cpu:,.0f} events/CPU-s, {plain_cpu / cpu:.2f}x the plain loop; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


TRACE = """
import sys, time
from pathlib import Path
start, cpu = time.perf_counter(), time.process_time()
from radia.ledger import Ledger
from radia.trace import render_text, trace_image, trace_patient
from radia.workspace import Workspace
site = Workspace(Path(sys.argv[1]))
ask = {"image": trace_image, "patient": trace_patient}[sys.argv[2]]
text = render_text(ask(site, Ledger(site.ledger_url, read_only=True), sys.argv[3]))
print(f"{time.perf_counter() - start:.2f} s, {time.process_time() - cpu:.2f} s of CPU, imports and text included")
"""


def show_traces(site: Workspace, ledger: Ledger, images: int, patients: int) -> None:
    image, patient = f"I{images // 2:016d}", f"P{patients // 2:016d}"
    for kind, ask, identifier in (("image", trace_image, image), ("patient", trace_patient, patient)):
        wall, cpu, _ = timed(lambda ask=ask, identifier=identifier: ask(site, ledger, identifier))  # type: ignore[misc]
        print(f"trace {kind}: {wall:.2f} s, {cpu:.2f} s of CPU, of {images:,} images", flush=True)
        apart = [sys.executable, "-c", TRACE, str(site.root), kind, identifier]
        said = subprocess.run(apart, check=True, capture_output=True, text=True).stdout.strip()
        print(f"trace {kind} in a process of its own: {said}", flush=True)

    def whole() -> int:
        with tempfile.TemporaryFile("w") as file:
            return sum(file.write(piece) for piece in write_json(trace_model(site, ledger, "1")))

    wall, cpu, size = timed(whole)
    print(f"trace model with its {images:,} images, as JSON ({size / 1e6:.0f} MB): {wall:.2f} s, {cpu:.2f} s of CPU")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("events", 1_000_000), ("images", 1_000_000), ("writers", 8), ("each", 1000)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    patients = max(1, given.images // 3)
    with tempfile.TemporaryDirectory() as holder:
        if given.writers:
            show_writers(Path(holder), given.writers, given.each)
        site = Workspace(given.folder or Path(holder) / "site")
        if not (site.root / "ledger.db").exists():
            Ledger(site.ledger_url, key=KEY).close()
            took, cpu, _ = timed(lambda: fill(site.root / "ledger.db", given.events, patients))
            print(f"{given.events:,} events made in {took:.0f} s ({cpu:.0f} s of CPU)", flush=True)
        ledger = Ledger(site.ledger_url, key=KEY)
        length = ledger.head().sequence
        print(f"{length:,} events: {(site.root / 'ledger.db').stat().st_size / 1e9:.2f} GB", flush=True)
        show_appends(Path(holder), ledger, length)
        show_verification(site.root / "ledger.db", site.ledger_url, length)
        if not site.snapshots.exists():
            write_images(site, given.images, patients)
        show_traces(site, ledger, given.images, patients)


if __name__ == "__main__":
    main()
