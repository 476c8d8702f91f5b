"""Runs one target under atheris (libFuzzer). A find is written beside the corpus and ends the run with status 1.

The corpus grows under `data/fuzz/TARGET/` and is kept for the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import subprocess
import sys
import warnings
from pathlib import Path

NAMES = ("dicom-header", "deidentification", "report")


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    asked.add_argument("target", choices=(*NAMES, "all"))
    asked.add_argument("--runs", type=int, default=350_000, help="executions of each target")
    asked.add_argument("--corpus", type=Path, default=Path("data/fuzz"))
    chosen = asked.parse_args()
    if chosen.target == "all":
        again = [sys.executable, "-m", "tests.fuzz", "--runs", str(chosen.runs), "--corpus", str(chosen.corpus)]
        sys.exit(max(subprocess.run([*again, name]).returncode for name in NAMES))
    fuzz(chosen.target, chosen.runs, chosen.corpus / chosen.target)


def fuzz(name: str, runs: int, corpus: Path) -> None:
    import atheris

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["radia"]):
        from tests.fuzz.targets import TARGETS, seeds
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (corpus / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)
    finds = corpus.parent / f"{name}-find-"
    limits = [f"-runs={runs}", "-max_len=20000", "-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, f"-artifact_prefix={finds}"], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
