"""Reports labelled per second on one core, beside negation pipelines on spaCy over the same reports.

    python benchmarks/reports.py [--reports CSV] [--labels CSV] [--rivals PYTHON] [--rounds 3]

Without a CSV the reports are the French ones of tests/spec, which are short; real ones (`id,text`) give the number
that counts. With `--labels` (id and the findings as 1, 0, blank for not scored) F1 of "present" is printed too. CPU
time, best round, so that a busy machine hardly changes it; every report is labelled from scratch. `--rivals` is the
Python of an environment with spaCy, negspacy and medspacy (benchmarks/reports_rivals.py says how to make one);
without it, and for what it lacks, the table says what is missing. The rivals look for 40 words of 13 findings, in
English only: less work.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radia.findings import FINDINGS
from radia.reports import label_report, read_report_table
from radia.tables import read_table

ROOT = Path(__file__).resolve().parents[1]
SCORED = tuple(finding for finding in FINDINGS if finding != "No Finding")


def reports_of(path: Path | None) -> pd.DataFrame:
    if path is not None:
        return read_report_table(path)
    lines = (ROOT / "tests" / "spec" / "french_reports.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.split("|", 1)[1].strip() for line in lines if line[:1] not in ("#", ">", "")]
    return pd.DataFrame({"id": [str(number) for number in range(len(texts))], "text": texts})


def per_second(label: Callable[[str], object], texts: Sequence[str], rounds: int) -> float:
    """The best of some rounds, after one that is not timed."""
    best = 0.0
    for number in range(rounds + 1):
        start = time.process_time()
        for text in texts:
            label(text)
        if number:
            best = max(best, len(texts) / (time.process_time() - start))
    return best


def rivals(python: str | None, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    if python is None:
        return {"spaCy": {"missing": "no --rivals PYTHON given"}}
    script = Path(__file__).with_name("reports_rivals.py")
    task = json.dumps({"texts": list(texts), "rounds": rounds})
    done = subprocess.run([python, str(script)], input=task, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"spaCy": {"missing": done.stderr.strip().splitlines()[-1] if done.stderr else "it failed"}}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def f1(present: Sequence[Sequence[str]], ids: Sequence[str], truth: pd.DataFrame) -> dict[str, float]:
    """Micro and macro F1 of "present" over the 13 findings that have words, on the cells that the truth decides."""
    known = truth.reindex(ids)
    counts = []
    for finding in SCORED:
        said = np.array([finding in findings for findings in present])
        decided = known[finding].notna().to_numpy()
        true = known[finding].eq(1.0).to_numpy()
        hits, wrong = (said & true & decided).sum(), ((said != true) & decided).sum()
        counts.append((2 * hits, 2 * hits + wrong))
    above, below = np.array(counts, dtype=np.float64).T
    return {
        "micro F1": round(float(above.sum() / below.sum()), 3),
        "macro F1": round(float((above[below > 0] / below[below > 0]).mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--rivals")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    reports = reports_of(arguments.reports)
    texts, ids = reports["text"].tolist(), reports["id"].tolist()
    ours = per_second(label_report, texts, arguments.rounds)
    labelled = [label_report(text).values for text in texts]
    present = [[finding for finding in SCORED if values[finding] == 1.0] for values in labelled]
    rows: dict[str, Any] = {"radia": {"per second": round(ours, 1), "present": present}}
    rows |= rivals(arguments.rivals, texts, arguments.rounds)
    truth = None if arguments.labels is None else read_table(arguments.labels)
    result: dict[str, Any] = {"reports": len(texts), "characters": round(sum(map(len, texts)) / len(texts))}
    for name, row in rows.items():
        told = row.pop("present", None)
        if "per second" in row:
            row["radia is faster by"] = round(ours / row["per second"], 2)
        result[name] = row | (f1(told, ids, truth) if truth is not None and told is not None else {})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
