"""Suspects and noise-aware estimates beside the usual ways: one table, measured on public labels in the same run.

usage: python benchmarks/noise.py [--data ../shared/published] [--seeds 50] [--speed]

--data holds chexpert_test/ (report labels, the majority of five radiologists, predictions of several models) and
nih_chexnet/, nih_expert/. Where it is absent, only the speed is measured, on invented numbers, and the script says so.
Protocol: report labels with blank as 0 and uncertain as 1 for Atelectasis and Edema, else 0; the mean over the five
competition findings; reads drawn by `radia reads choose`; error = |estimate - metric with all true labels|.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import BadLabelValue
from radia.estimate import NoisySet, difference, estimate, mass_metrics, table
from radia.metrics import f1
from radia.posterior import evidence
from radia.reads import sampling_probabilities, systematic_sample
from radia.suspects import find_suspects

Floats = NDArray[np.float64]
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
NIH = {
    "Airspace opacity": ("Infiltration", "Consolidation", "Pneumonia", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
    "Pneumothorax": ("Pneumothorax",),
}
MODELS = ("drnet", "ngango3", "uestc", "desmond")
"""Of the published models, those that are not mostly copies of another."""


@dataclass(frozen=True)
class Studies:
    """One set: given and true labels, and the scores of each model, all [n, f]."""

    findings: tuple[str, ...]
    given: Floats
    truth: Floats
    models: dict[str, Floats]


def chexpert(folder: Path) -> Studies:
    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / name, index_col=0)[list(FIVE)]

    truth = read("groundtruth.csv")
    reports = read("report_labels.csv").loc[truth.index].fillna(0.0)
    for finding in FIVE:
        reports[finding] = reports[finding].replace(-1.0, 1.0 if finding in ("Atelectasis", "Edema") else 0.0)
    models = {m: read(f"models/{m}.predictions.csv").loc[truth.index].clip(0, 1).to_numpy(float) for m in MODELS}
    return Studies(FIVE, reports.to_numpy(float), truth.to_numpy(float), models)


def nih(data: Path) -> Studies:
    expert = pd.read_csv(data / "nih_expert/expert_labels.csv", index_col=0)
    scores = pd.read_csv(data / "nih_chexnet/predictions.csv", index_col=0).loc[expert.index]
    labels = pd.read_csv(data / "nih_chexnet/labels.csv", index_col=0).loc[expert.index]
    return Studies(
        tuple(NIH),
        np.column_stack([labels[list(parts)].max(axis=1) for parts in NIH.values()]).astype(float),
        np.column_stack([expert[finding] == "YES" for finding in NIH]).astype(float),
        {"chexnet": np.column_stack([scores[list(parts)].max(axis=1) for parts in NIH.values()])},
    )


# --- suspects -------------------------------------------------------------------------------------------------------


def wrongness(studies: Studies, scores: Floats, read: NDArray[np.int64] | None = None) -> Floats:
    ids = [str(number) for number in range(len(scores))]
    frames = [pd.DataFrame(values, index=ids, columns=list(studies.findings)) for values in (studies.given, scores)]
    reads = None
    if read is not None:
        reads = pd.DataFrame(studies.truth[read], index=[ids[i] for i in read], columns=list(studies.findings))
    found = find_suspects(*frames, reads=reads).pivot(index="id", columns="finding", values="score")
    return found.loc[ids, list(studies.findings)].to_numpy(float)


def cleanlab_wrongness(studies: Studies, scores: Floats) -> Floats:
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    labels = [list(np.flatnonzero(row)) for row in studies.given]
    return np.asarray(1 - get_label_quality_scores_per_class(labels, scores))


def precision_and_top(studies: Studies, score: Floats, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Mean average precision over findings, and precision among the first tenth of all cells."""
    from sklearn.metrics import average_precision_score

    wrong, score = (studies.given != studies.truth)[rows], score[rows]
    kept = [f for f in range(wrong.shape[1]) if wrong[:, f].any()]
    first = np.argsort(-score.ravel())[: score.size // 10]
    return float(np.mean([average_precision_score(wrong[:, f], score[:, f]) for f in kept])), wrong.ravel()[
        first
    ].mean()


def suspects_table(studies: Studies, other: Studies, seeds: int) -> Iterator[str]:
    everyone = np.arange(len(studies.given))
    mean = np.mean(list(studies.models.values()), axis=0)
    one = np.mean([precision_and_top(studies, wrongness(studies, s), everyone)[0] for s in studies.models.values()])
    usual = [precision_and_top(studies, cleanlab_wrongness(studies, s), everyone)[0] for s in studies.models.values()]
    yield row("suspects: average precision, one model", one, float(np.mean(usual)))
    usual_mean = precision_and_top(studies, cleanlab_wrongness(studies, mean), everyone)
    yield row("  mean of models", precision_and_top(studies, wrongness(studies, mean), everyone)[0], usual_mean[0])
    seeded = np.mean([_seeded(studies, mean, 50, seed) for seed in range(seeds)], axis=0)
    yield row("  mean of models, 50 reads", seeded[0], usual_mean[0])
    yield row("  precision in the first 10%, 50 reads", seeded[1], usual_mean[1])
    chexnet = other.models["chexnet"]
    seeded = np.mean([_seeded(other, chexnet, 94, seed) for seed in range(seeds)], axis=0)
    usual_nih = precision_and_top(other, cleanlab_wrongness(other, chexnet), np.arange(len(chexnet)))[0]
    yield row("  NIH, 94 reads", seeded[0], usual_nih)


def _seeded(studies: Studies, scores: Floats, budget: int, seed: int) -> tuple[float, float]:
    everyone = np.arange(len(scores))
    read = np.random.default_rng(seed).choice(everyone, budget, replace=False)
    return precision_and_top(studies, wrongness(studies, scores, read), np.setdiff1d(everyone, read))


# --- estimates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One seed and model: [metric, finding] of errors with sign, of whether the interval held, of the usual ways."""

    error: Floats
    held: Floats
    reads_only: Floats
    naive: Floats
    value: Floats
    true: Floats


def _noisy(studies: Studies, scores: Floats, chosen: NDArray[np.int64], wanted: Floats) -> NoisySet:
    limits = np.array([np.quantile(scores[:, f], 1 - studies.truth[:, f].mean()) for f in range(scores.shape[1])])
    truth, sampling = np.full(scores.shape, np.nan), np.full(len(scores), np.nan)
    truth[chosen], sampling[chosen] = studies.truth[chosen], wanted[chosen]
    readers = np.full(len(scores), np.nan)
    return NoisySet(studies.findings, scores, scores >= limits, studies.given, truth, sampling, readers)


def trial(studies: Studies, scores: Floats, chosen: NDArray[np.int64], wanted: Floats, seed: int) -> Trial:
    noisy = _noisy(studies, scores, chosen, wanted)
    made = estimate(noisy, seed=seed)
    found = table(made)["findings"]
    shape = (2, scores.shape[1])
    true, naive, only, value, held = (np.full(shape, np.nan) for _ in range(5))
    for f, finding in enumerate(studies.findings):
        full = studies.truth[None, :, f]
        right = mass_metrics(full, 1 - full, scores[:, f], noisy.decisions[:, f])
        for m, metric in enumerate(("auroc", "f1")):
            entry = found[finding][metric]
            true[m, f], value[m, f] = right[metric][0], np.nan if entry["value"] is None else entry["value"]
            naive[m, f] = made.parts["labels alone"][metric][f]
            only[m, f] = made.parts["reads only"][metric][f]
            held[m, f] = entry["value"] is not None and entry["low"] <= true[m, f] <= entry["high"]
    return Trial(value - true, held, only - true, naive - true, value, true)


def trials(studies: Studies, budget: int, seeds: int) -> list[list[Trial]]:
    """Trials by seed and model; each model has its own reads, chosen with its own scores."""
    made: list[list[Trial]] = []
    for seed in range(seeds):
        made.append([])
        for scores in studies.models.values():
            wanted = sampling_probabilities(evidence(scores, studies.given), scores, budget=budget)
            chosen = systematic_sample(wanted, np.random.default_rng(seed))
            made[-1].append(trial(studies, scores, chosen, wanted, seed))
    return made


def estimates_table(studies: Studies, other: Studies, seeds: int) -> Iterator[str]:
    for budget in (50, 100):
        by_seed = trials(studies, budget, seeds)
        yield from _errors(f"{budget} reads of {len(studies.given)}", list(itertools.chain(*by_seed)))
        if budget == 50:
            yield _coverage(list(itertools.chain(*by_seed)))
            order = _wrong_order(by_seed)
            yield row("  wrong order of two models, F1 differs >= 0.02", *order)
            paired = paired_order(studies, min(seeds, 20))
            yield (
                row("  the same, both on the same drawn truths", paired[0], order[1]) + f"   of mean F1 {paired[1]:.3f}"
            )
    by_seed = trials(other, 94, seeds)
    flat = list(itertools.chain(*by_seed))
    yield from _errors(f"NIH, 94 reads of {len(other.given)}", flat)
    bias = np.nanmean([t.error for t in flat], axis=0)
    yield f"  bias per finding: AUROC {np.round(bias[0], 3).tolist()}, F1 {np.round(bias[1], 3).tolist()}"
    yield _coverage(flat)


def _coverage(made: list[Trial]) -> str:
    auroc, decided = np.mean([t.held for t in made], axis=0)
    return (
        f"  coverage: AUROC {auroc.mean():.2f} (least of a finding {auroc.min():.2f}), "
        f"F1 {decided.mean():.2f} (least {decided.min():.2f})"
    )


def _errors(title: str, made: list[Trial]) -> Iterator[str]:
    for m, metric in enumerate(("AUROC", "F1")):
        error, only, naive = (
            float(np.nanmean(np.abs([values[m] for values in kind])))
            for kind in ([t.error for t in made], [t.reads_only for t in made], [t.naive for t in made])
        )
        yield row(f"{title}: {metric} error", error, naive) + f"   reads only {only:.3f}"


def _wrong_order(by_seed: list[list[Trial]]) -> tuple[float, float]:
    """How often the estimate, and the given labels, put two models in the wrong order, where they truly differ."""
    ours, usual = [], []
    for of_seed in by_seed:
        for one, two in itertools.combinations(of_seed, 2):
            gap = one.true[1] - two.true[1]
            clear = np.abs(gap) >= 0.02
            ours += list((np.sign(one.value[1] - two.value[1]) != np.sign(gap))[clear])
            naive = (one.naive[1] + one.true[1]) - (two.naive[1] + two.true[1])
            usual += list((np.sign(naive) != np.sign(gap))[clear])
    return float(np.mean(ours)), float(np.mean(usual))


def paired_order(studies: Studies, seeds: int) -> tuple[float, float]:
    """As _wrong_order, by radia.estimate.difference: both models on the same drawn truths; and of mean F1."""
    each, means = [], []
    names = list(studies.models)
    for seed in range(seeds):
        scores = studies.models[names[seed % len(names)]]
        wanted = sampling_probabilities(evidence(scores, studies.given), scores, budget=50)
        chosen = systematic_sample(wanted, np.random.default_rng(seed))
        for one, two in itertools.combinations(names, 2):
            first, second = (_noisy(studies, studies.models[name], chosen, wanted) for name in (one, two))
            gap = _full_f1(studies, second) - _full_f1(studies, first)
            found = difference(first, second.scores, second.decisions, seed=seed, draws=150)
            value = np.array([found["findings"][finding]["f1"]["value"] for finding in studies.findings])
            each += list((np.sign(value) != np.sign(gap))[np.abs(gap) >= 0.02])
            if abs(gap.mean()) >= 0.02:
                means.append(np.sign(found["means"]["all"]["f1"]["value"]) != np.sign(gap.mean()))
    return float(np.mean(each)), float(np.mean(means))


def _full_f1(studies: Studies, noisy: NoisySet) -> Floats:
    return np.array([f1(studies.truth[:, k], noisy.decisions[:, k]) for k in range(len(studies.findings))])


# --- speed ----------------------------------------------------------------------------------------------------------


def speed_table() -> Iterator[str]:
    chance = np.random.default_rng(0)
    names = [f"finding {number}" for number in range(14)]
    truth = (chance.random((224_000, 14)) < 0.15).astype(float)
    scores = 1 / (1 + np.exp(-(chance.normal(size=truth.shape) + 2 * truth - 1)))
    given = np.where(chance.random(truth.shape) < 0.1, 1 - truth, truth)
    studies = Studies(tuple(names), given, truth, {})
    start = time.perf_counter()
    frames = [pd.DataFrame(values, columns=names) for values in (given, scores)]
    find_suspects(*frames)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    cleanlab_wrongness(studies, scores)
    yield row("seconds for suspects of 224,000 x 14", ours, time.perf_counter() - start)
    yield f"  most memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    few = Studies(tuple(names), given[:5000], truth[:5000], {})
    wanted = sampling_probabilities(evidence(scores[:5000], few.given), scores[:5000], budget=200)
    chosen = systematic_sample(wanted, chance)
    start = time.perf_counter()
    trial(few, scores[:5000], chosen, wanted, 0)
    yield f"seconds for estimates of 14 findings x 5,000 studies, 200 reads: {time.perf_counter() - start:.1f}"


def row(name: str, ours: float, usual: float) -> str:
    ratio = ours / usual if usual else float("nan")
    return f"{name:<50} {ours:8.3f}   usual way {usual:8.3f}   ratio {ratio:5.2f}"


def main() -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "published")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--speed", action="store_true", help="only the speed")
    options = parser.parse_args()
    if options.speed or not options.data.is_dir():
        if not options.speed:
            print(f"{options.data} is not there: accuracy is not measured, only speed")
        for line in speed_table():
            print(line, flush=True)
        return
    try:
        studies, other = chexpert(options.data / "chexpert_test"), nih(options.data)
    except (OSError, KeyError, BadLabelValue) as error:
        raise SystemExit(f"{options.data} cannot be used: {error}") from error
    tables = suspects_table(studies, other, options.seeds), estimates_table(studies, other, options.seeds)
    for line in itertools.chain(*tables, speed_table()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
