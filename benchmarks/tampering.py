"""A thousand random single changes to a site whose job has run: how many an audit finds, and names.

    python benchmarks/tampering.py [--changes 1000] [--seed 0] [--folder DIR]

Runs the whole job on a small embedded hospital, puts the candidate in use, and then changes one thing at a time: any
byte of any event or of its index, deletion, swap, insertion, tail, anchors; recorded files, DVC's objects, shards and
snapshots on disk; params, metrics, tags, cards, files and the model in use in MLflow. `--folder` keeps the site.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import tampering
from tests.acceptance.conftest import prepare, working_in


def make_site(folder: Path) -> None:
    from pipelines.run import retrain
    from radia import steps
    from radia.steps import open_run
    from radia.synthetic.hospital import write_hospital

    write_hospital(folder / "hospital", studies=90, seed=3)
    (folder / "site").mkdir()
    prepare(folder / "site")
    with working_in(folder / "site"):
        retrain(inbox=folder / "hospital" / "inbox", labels=folder / "hospital" / "labels.csv")
        steps.promote(open_run(), "1", approver="Dre Côté", reason="the figures", override="too few studies")


def main() -> None:
    from radia.workspace import Workspace

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--changes", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as holder:
        folder = given.folder or Path(holder)
        if not (folder / "site" / "ledger.db").exists():
            make_site(folder)
        site = Workspace(folder / "site")
        with working_in(site.root):
            assert tampering.said_of(site) == "", tampering.said_of(site)
            start = time.process_time()
            missed, kinds = tampering.missed(site, given.changes, given.seed)
            took = time.process_time() - start
            assert tampering.said_of(site) == "", tampering.said_of(site)
    for kind, number in sorted(kinds.items()):
        print(f"{number:5} {kind}")
    print(f"{kinds.total() - len(missed)} of {kinds.total()} changes found and named, {took:.0f} s of CPU")
    for change, said in missed:
        print(f"missed: {change.kind}: expected one of {change.named}, the audit said {said!r}")


if __name__ == "__main__":
    main()
