"""The ledger at length: appends, verification, and traces over many events and images.

    python benchmarks/ledger.py [--events 1000000] [--images 1000000] [--writers 8] [--each 1000]

Prints each figure, and for verification its ratio to the plainest rival: sqlite3, json and hashlib in one loop.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from radia.findings import FINDINGS
from radia.ledger import GENESIS, Ledger, canonical, chain
from radia.trace import to_json, trace_image, trace_model, trace_patient
from radia.workspace import Workspace

SNAPSHOT = "5" * 64


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def append_many(url: str, name: str, count: int) -> None:
    ledger = Ledger(url)
    for number in range(count):
        ledger.append("predict", actor=name, once=f"{name}{number}", subjects=[f"I{number}"], code="bench")


def fill(path: Path, count: int, patients: int) -> None:
    """Writes `count` events straight into the tables, as Ledger.append would one by one."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    last, at = GENESIS, "2026-01-01T00:00:00.000000Z"
    rows, mentions = [], []
    for number in range(1, count + 1):
        who = f"P{number % patients:016d}"
        entry = {"format": 1, "action": "accessed", "actor": "Dr Roy", "at": at, "code": "bench", "sequence": number}
        if number == count - 2:
            entry |= {"action": "snapshot", "outputs": {"snapshot": SNAPSHOT}}
        elif number == count - 1:
            entry |= {"action": "register", "inputs": {"snapshot": SNAPSHOT}, "outputs": {"cxr-candidate/1": "c" * 32}}
        else:
            entry |= {"subjects": [who], "parameters": {"screen": "review"}}
        body = canonical(entry)
        hash_ = chain(last, body)
        rows.append((number, at, entry["action"], "Dr Roy", None, body, last, hash_, None))
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
    """A manifest of batches of 10,000 images and one snapshot that holds them all."""
    chance = np.random.default_rng(0)
    ids = np.sort([f"I{number:016d}" for number in range(count)])
    rows = pd.DataFrame({"image": ids, "study": [f"S{number // 2:016d}" for number in range(count)]})
    rows["patient"] = [f"P{number % patients:016d}" for number in range(count)]
    rows["site"], rows["split"] = "HND", chance.choice(["train", "validation", "test"], count)
    rows["batch"] = [f"HND-20260101-{number // 10_000}" for number in range(count)]
    rows["source_sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in ids]
    rows["pixel_sha256"] = rows["source_sha256"].to_numpy()[::-1]
    folder = site.snapshots / SNAPSHOT
    folder.mkdir(parents=True)
    site.manifest.mkdir(parents=True)
    rows.to_parquet(folder / "images.parquet", row_group_size=50_000)
    labels = pd.DataFrame({"study": rows["study"].unique()})
    for finding in FINDINGS:
        labels[finding] = chance.choice([1.0, 0.0, np.nan], len(labels))
    labels.to_parquet(folder / "labels.parquet", row_group_size=50_000)
    for batch, part in rows.groupby("batch"):
        part.to_parquet(site.manifest / f"{batch}.parquet")


def plain_verify(path: Path) -> None:
    """The plainest check of the chain alone: no HMAC, no index, no columns."""
    last = GENESIS
    for body, hash_ in sqlite3.connect(path).execute("SELECT body, hash FROM ledger_events ORDER BY sequence"):
        json.loads(body)
        last = chain(last, body)
        assert last == hash_


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("events", 1_000_000), ("images", 1_000_000), ("writers", 8), ("each", 1000)):
        options.add_argument(f"--{name}", type=int, default=default)
    given = options.parse_args()
    patients = max(1, given.images // 3)
    with tempfile.TemporaryDirectory() as holder:
        url = f"sqlite:///{holder}/writers.db"
        first = Ledger(url)
        context = multiprocessing.get_context("fork")
        jobs = [context.Process(target=append_many, args=(url, f"w{n}", given.each)) for n in range(given.writers)]
        took, _ = timed(lambda: [job.start() for job in jobs] and [job.join() for job in jobs])
        found = first.verify().events
        assert found == given.writers * given.each, found
        print(f"{given.writers} writers x {given.each} events: {took:.1f} s, one chain of {found}, none lost")

        site = Workspace(Path(holder))
        ledger = Ledger(site.ledger_url)
        short = min(timed(lambda: ledger.append("read", actor="x", code="b"))[0] for _ in range(50))
        ledger.close()
        (site.root / "ledger.db").unlink()
        ledger = Ledger(site.ledger_url)
        took, _ = timed(lambda: fill(site.root / "ledger.db", given.events, patients))
        print(f"{given.events:,} events made in {took:.0f} s; {(site.root / 'ledger.db').stat().st_size / 1e9:.2f} GB")
        plain, _ = timed(lambda: plain_verify(site.root / "ledger.db"))
        took, _ = timed(ledger.verify)
        print(
            f"verify: {given.events / took:,.0f} events/s; {plain / took:.2f}x a plain loop that checks the chain alone"
        )
        long = min(timed(lambda: ledger.append("read", actor="x", code="b"))[0] for _ in range(50))
        print(f"append: {short * 1e3:.2f} ms to an empty ledger, {long * 1e3:.2f} ms after {given.events:,}")
        write_images(site, given.images, patients)
        image, patient = f"I{given.images // 2:016d}", f"P{patients // 2:016d}"
        print(f"trace image: {timed(lambda: trace_image(site, ledger, image))[0]:.2f} s of {given.images:,}")
        print(f"trace patient: {timed(lambda: trace_patient(site, ledger, patient))[0]:.2f} s")
        took, tree = timed(lambda: trace_model(site, ledger, "1"))
        more, _ = timed(lambda: json.dumps(to_json(tree)))
        print(f"trace model: {took:.2f} s, and {more:.2f} s for all {given.images:,} images as JSON")


if __name__ == "__main__":
    main()
