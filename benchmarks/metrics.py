"""Metrics against scikit-learn in the same run: speed, equality, and the coverage of the intervals by simulation.

usage: python benchmarks/metrics.py [speed|large|coverage ...]      (all of them without a name)

Times are processor time: run with OMP_NUM_THREADS=1, and nothing that shares the machine counts.

speed     2,000 bootstrap replicates of 14 AUROCs at n = 500 (asked for: 50 times a scikit-learn loop) and at n = 22,433
          (5 times); DeLong at n = 22,433 (at most 25 ms). The loop is timed on a part of its replicates and scaled.
large     the whole evaluation of 224,000 rows x 14 findings with intervals (at most 60 s on 2 cores)
coverage  how often the 95% limits hold the true value, by simulation (93 to 97%), of each metric's value and of its
          paired difference between two models, of which the second is too sure of itself; findings as rare as 2%
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, ndtri
from sklearn.metrics import roc_auc_score

from radia import metrics
from radia.findings import FINDINGS

REPLICATES = 2000


def cohort(
    rng: np.random.Generator, n: int, prevalence: metrics.Floats, separation: metrics.Floats
) -> tuple[metrics.Floats, metrics.Floats]:
    """Truth and calibrated probabilities [n, f]: normal scores, `separation` standard deviations apart."""
    truth = (rng.random((n, len(prevalence))) < prevalence).astype(float)
    score = separation * (truth - 0.5) + rng.normal(size=truth.shape)
    return truth, expit(np.log(prevalence / (1 - prevalence)) + separation * score)


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Processor seconds of the fastest of some runs: what else the machine does is no part of the claim."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def bootstrap_ours(truth: metrics.Floats, probs: metrics.Floats) -> metrics.Floats:
    """2,000 x 14 AUROCs, and nothing else."""
    columns = [metrics.Column.of(truth[:, k], probs[:, k], probs[:, k] > 0.5).ranked() for k in range(truth.shape[1])]
    codes, count = metrics.group_codes(None, len(truth))
    chunks = metrics.resample(codes, count, REPLICATES, 0)
    return np.concatenate([np.column_stack([areas(w)[0] for areas in columns]) for w in chunks])


def bootstrap_sklearn(truth: metrics.Floats, probs: metrics.Floats, replicates: int) -> metrics.Floats:
    """The usual loop."""
    rng, out = np.random.default_rng(0), []
    for _ in range(replicates):
        rows = rng.integers(0, len(truth), len(truth))
        out.append([roc_auc_score(truth[rows, k], probs[rows, k]) for k in range(truth.shape[1])])
    return np.array(out)


def speed() -> None:
    rng = np.random.default_rng(0)
    prevalence, separation = rng.uniform(0.03, 0.4, 14), rng.uniform(1, 2, 14)
    for n, part, asked in ((500, 40, 50), (22_433, 4, 5)):
        truth, probs = cohort(rng, n, prevalence, separation)
        ours = seconds(lambda t=truth, p=probs: bootstrap_ours(t, p), 3)
        loop = seconds(lambda t=truth, p=probs, r=part: bootstrap_sklearn(t, p, r), 3) * REPLICATES / part
        spread = bootstrap_ours(truth, probs).std(axis=0).mean()
        print(
            f"{REPLICATES} replicates of 14 AUROCs, n = {n}: {ours:.2f} s, scikit-learn's loop {loop:.1f} s, "
            f"ratio {loop / ours:.0f} (asked for {asked}); mean standard error {spread:.4f}"
        )
    taken = seconds(lambda: metrics.delong(truth[:, 0], probs[:, :2]), 5)
    exact = abs(metrics.delong(truth[:, 0], probs[:, 0]).values[0] - roc_auc_score(truth[:, 0], probs[:, 0]))
    print(f"DeLong of two models, n = 22433: {1000 * taken:.1f} ms (asked for 25); AUROC differs by {exact:.0e}")


def large() -> None:
    rng = np.random.default_rng(0)
    truth, probs = cohort(rng, 224_000, rng.uniform(0.03, 0.4, 14), rng.uniform(1, 2, 14))
    patients = rng.integers(0, 65_000, 224_000)
    start = time.perf_counter()
    busy = seconds(
        lambda: metrics.table_of(metrics.assess(truth, probs, findings=FINDINGS, groups=patients, replicates=1000))
    )
    print(
        f"evaluation of 224,000 x 14, 65,000 patients, 1,000 replicates: {busy:.1f} s of processor time, "
        f"{time.perf_counter() - start:.1f} s on this machine with all that it did (asked for 60 s on 2 cores)"
    )


PREVALENCE, SEPARATION = np.repeat([0.02, 0.05, 0.3], 2), np.tile([1.0, 2.0], 3)
NAMES = tuple(f"{p:.0%}, {s:.0f} sd" for p, s in zip(PREVALENCE, SEPARATION, strict=True))


def coverage(studies: int = 1000, n: int = 500) -> None:
    """Every metric's value (of the first model) and difference, at a threshold that finds 60% of the positives and at
    0.2, where a rare finding is hardly ever called. A mean is held to the true mean of the findings that it is over.
    """
    usual = expit(np.log(PREVALENCE / (1 - PREVALENCE)) + SEPARATION * (SEPARATION / 2 - ndtri(0.4)) - SEPARATION)
    for title, thresholds in (("60% of positives found", usual), ("threshold 0.2", np.full(len(NAMES), 0.2))):
        true = _true_values(thresholds)
        values: Counter[tuple[str, str]] = Counter()
        gains: Counter[tuple[str, str]] = Counter()
        for seed in range(studies):
            first, second, truth = _pair(np.random.default_rng(seed), n)
            both = [
                metrics.assess(truth, probs, findings=NAMES, thresholds=thresholds, replicates=300, seed=seed)
                for probs in (first, second)
            ]
            table, differences = metrics.table_of(both[0]), metrics.differences(*both)
            for metric in metrics.METRICS:
                value, gain = true[metric][0], true[metric][1] - true[metric][0]
                kept = [model.averaged("all", metric) for model in both]
                _judge(values, metric, table, value, kept[0])
                _judge(gains, metric, differences, gain, [k for k in kept[0] if k in kept[1]])
            entries = [entry["auroc"]["delong"] for entry in differences["findings"].values()]
            for name, entry, gain in zip(NAMES, entries, true["auroc"][1] - true["auroc"][0], strict=True):
                _count(gains, "auroc, DeLong", name, entry, gain)
        about = f"{studies} studies of {n} images, {title} (prevalence, separation)"
        _print_coverage(f"coverage of the 95% limits of values, {about}", values, metrics.METRICS)
        _print_coverage(
            f"coverage of the 95% limits of differences, {about}", gains, (*metrics.METRICS, "auroc, DeLong")
        )


def _pair(rng: np.random.Generator, n: int) -> tuple[metrics.Floats, metrics.Floats, metrics.Floats]:
    """A calibrated model; one with half of its noise and half of its own, better, with logits 1.5 times too extreme."""
    truth = (rng.random((n, len(PREVALENCE))) < PREVALENCE).astype(float)
    noise, own = rng.normal(size=truth.shape), rng.normal(size=truth.shape)
    start = np.log(PREVALENCE / (1 - PREVALENCE))
    first = SEPARATION * (truth - 0.5) + noise
    second = 1.2 * SEPARATION * (truth - 0.5) + np.sqrt(0.5) * (noise + own)
    return expit(start + SEPARATION * first), expit(1.5 * (start + 1.2 * SEPARATION * second)), truth


def _true_values(thresholds: metrics.Floats) -> dict[str, metrics.Floats]:
    """Both models' values [2, findings] from a million rows; the ECE of a calibrated model is 0."""
    first, second, truth = _pair(np.random.default_rng(10**6), 1_000_000)
    true = {metric: np.empty((2, len(NAMES))) for metric in metrics.METRICS}
    for model, probs in enumerate((first, second)):
        for k in range(len(NAMES)):
            for metric, value in (
                metrics.Column.of(truth[:, k], probs[:, k], probs[:, k] >= thresholds[k]).point().items()
            ):
                true[metric][model, k] = value
    true["ece"][0] = 0.0
    return true


def _judge(
    held: Counter[tuple[str, str]], metric: str, table: dict[str, Any], true: metrics.Floats, kept: list[int]
) -> None:
    for k, name in enumerate(NAMES):
        _count(held, metric, name, table["findings"][name][metric], true[k])
    _count(held, metric, "mean", table["means"]["all"][metric], float(true[kept].mean()) if kept else 0.0)


def _count(held: Counter[tuple[str, str]], metric: str, name: str, entry: dict[str, float], true: float) -> None:
    if entry["low"] is not None:  # where a metric does not exist in a study, there are no limits to judge
        held[metric, name] += entry["low"] <= true <= entry["high"]
        held[metric, f"{name} judged"] += 1


def _print_coverage(title: str, held: Counter[tuple[str, str]], shown: Sequence[str]) -> None:
    print(f"\n{title}")
    print(f"{'':14s}" + "".join(f"{name:>11s}" for name in (*NAMES, "mean")))
    for metric in shown:
        judged = [held[metric, f"{name} judged"] for name in (*NAMES, "mean")]
        cells = [held[metric, name] / n if n else np.nan for name, n in zip((*NAMES, "mean"), judged, strict=True)]
        print(f"{metric:14s}" + "".join(f"{cell:11.3f}" for cell in cells))


if __name__ == "__main__":
    parts = {"speed": speed, "large": large, "coverage": coverage}
    for part in sys.argv[1:] or parts:
        parts[part]()
