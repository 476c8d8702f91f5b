"""Suspects and noise-aware estimates beside the usual ways: one table, measured on public labels in the same run.

usage: python benchmarks/noise.py [--data ../shared/published] [--seeds 50] [--speed]

--data holds chexpert_test/ (report labels, the majority of five radiologists, predictions of several models) and
nih_chexnet/, nih_expert/. Where it is absent, only the speed is measured, on invented numbers, and the script says so.
Protocol: report labels with blank as 0 and uncertain as 1 for Atelectasis and Edema, else 0; the mean over the five
competition findings; reads drawn by `radia reads choose`; error = |estimate - metric with all true labels|; every model
decides for as many positives as there truly are.

Three columns: RADIA; a *simple* good method on the same studies, reads and models (suspects: cleanlab on Platt-scaled
scores; estimates: one logistic regression on score, given label and their product, shared by all findings with small
deviations, Gaussian priors, soft labels for what was not read, limits from a Laplace approximation); and the *usual*
way (cleanlab as it is; the given labels taken for true). The targets were set on all 500 test studies. With half of
them the same reads are a larger share, and single labels weigh more: compare with the simple column beside.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from radia.errors import BadLabelValue
from radia.estimate import NoisySet, difference, estimate, mass_metrics, table
from radia.posterior import evidence, normal_scores
from radia.reads import sampling_probabilities, systematic_sample
from radia.suspects import find_suspects

Floats = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
METRICS = ("auroc", "f1")
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


def simple_wrongness(studies: Studies, scores: Floats, read: NDArray[np.int64] | None = None) -> Floats:
    if read is not None:
        present = Simple.fitted(scores, studies.given, read, studies.truth[read]).present()
        return np.where(studies.given == 1, 1 - present, present)
    from sklearn.linear_model import LogisticRegression

    z, scaled = normal_scores(scores), np.zeros(scores.shape)
    for f in range(scores.shape[1]):
        one = z[:, [f]], studies.given[:, f]
        scaled[:, f] = LogisticRegression(C=100).fit(*one).predict_proba(one[0])[:, 1]
    return cleanlab_wrongness(studies, scaled)


def precision_and_top(studies: Studies, score: Floats, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Mean average precision over findings, and precision among the first tenth of all cells."""
    from sklearn.metrics import average_precision_score

    wrong, score = (studies.given != studies.truth)[rows], score[rows]
    kept = [f for f in range(wrong.shape[1]) if wrong[:, f].any()]
    first = np.argsort(-score.ravel())[: score.size // 10]
    precisions = [average_precision_score(wrong[:, f], score[:, f]) for f in kept]
    return float(np.mean(precisions)), float(wrong.ravel()[first].mean())


def suspects_table(studies: Studies, other: Studies, seeds: int) -> Iterator[str]:
    """Rows of the table that concern suspects."""
    everyone = np.arange(len(studies.given))
    mean = np.mean(list(studies.models.values()), axis=0)
    ways = (wrongness, simple_wrongness, cleanlab_wrongness)
    one = [
        float(np.mean([precision_and_top(studies, way(studies, s), everyone)[0] for s in studies.models.values()]))
        for way in ways
    ]
    yield row("suspects: average precision, one model", one, 0.775)
    together = [precision_and_top(studies, way(studies, mean), everyone) for way in ways]
    yield row("  mean of models", [found[0] for found in together], 0.80)
    seeded = np.mean([_seeded(studies, mean, 50, seed) for seed in range(seeds)], axis=0)
    yield row(f"  mean of models, 50 reads of {len(everyone)}", [*seeded[:, 0], together[2][0]], 0.845)
    yield row("  precision in the first 10%, 50 reads", [*seeded[:, 1], together[2][1]], 0.90)
    chexnet = other.models["chexnet"]
    seeded = np.mean([_seeded(other, chexnet, 94, seed) for seed in range(seeds)], axis=0)
    usual = precision_and_top(other, cleanlab_wrongness(other, chexnet), np.arange(len(chexnet)))[0]
    yield row(f"  NIH, 94 reads of {len(chexnet)}", [*seeded[:, 0], usual], 0.68)


def _seeded(studies: Studies, scores: Floats, budget: int, seed: int) -> list[tuple[float, float]]:
    """Average precision and first tenth among the unread: RADIA, simple."""
    everyone = np.arange(len(scores))
    read = np.random.default_rng(seed).choice(everyone, budget, replace=False)
    unread = np.setdiff1d(everyone, read)
    return [precision_and_top(studies, way(studies, scores, read), unread) for way in (wrongness, simple_wrongness)]


# --- the simple method ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simple:
    """Logistic regression on (1, z, given, z·given): weights shared by all findings, and small deviations of each."""

    columns: Floats
    mode: Floats
    covariance: Floats

    @classmethod
    def fitted(cls, scores: Floats, given: Floats, read: NDArray[np.int64], truth: Floats) -> Simple:
        z, findings = normal_scores(scores), scores.shape[1]
        columns = np.stack([np.ones_like(z), z, given, z * given], axis=2)
        design = np.zeros((findings, len(read), findings + 1, 4))
        for f in range(findings):
            design[f, :, 0] = design[f, :, f + 1] = columns[read, f]
        flat, labels = design.reshape(findings * len(read), -1), truth.T.ravel()
        center = np.zeros(flat.shape[1])
        center[1] = 1.5
        precision = 1 / np.square(np.r_[3.0, 1.0, 1.5, 1.0, np.tile([1.0, 0.4, 0.5, 0.3], findings)])
        mode = center.copy()
        for _ in range(30):
            chance = expit(flat @ mode)
            curvature = (flat * (chance * (1 - chance))[:, None]).T @ flat + np.diag(precision)
            step = np.linalg.solve(curvature, flat.T @ (labels - chance) - precision * (mode - center))
            mode = mode + step
            if np.abs(step).max() < 1e-6:
                break
        return cls(columns, mode, np.linalg.inv(curvature))

    def present(self, weights: Floats | None = None) -> Floats:
        """P(present) [n, f] at the mode, or [m, n, f] for m drawn weights."""
        drawn = (self.mode if weights is None else weights).reshape(-1, self.columns.shape[1] + 1, 4)
        chance = expit(np.einsum("mfk,nfk->mnf", drawn[:, :1] + drawn[:, 1:], self.columns))
        return np.asarray(chance[0] if weights is None else chance)


def simple_estimate(noisy: NoisySet, seed: int, draws: int = 150) -> tuple[Floats, Floats, Floats]:
    """Values [metric, f], low and high limits: AUROC and F1 with soft labels; 2.1 standard deviations of draws."""
    chance = np.random.default_rng(seed)
    fit = Simple.fitted(noisy.scores, noisy.given, noisy.rows, noisy.truth[noisy.rows])
    soft, drawn = fit.present(), fit.present(chance.multivariate_normal(fit.mode, fit.covariance, draws))
    labels = (chance.random(drawn.shape) < drawn).astype(float)
    for kind in (soft, labels):
        kind[..., noisy.rows, :] = noisy.truth[noisy.rows]
    value, low, high = (np.full((2, soft.shape[1]), np.nan) for _ in range(3))
    for f in range(soft.shape[1]):
        middle, spread = (
            mass_metrics(kind, 1 - kind, noisy.scores[:, f], noisy.decisions[:, f])
            for kind in (soft[None, :, f], labels[..., f])
        )
        for m, metric in enumerate(METRICS):
            center = logit(np.clip(middle[metric][0], 1e-4, 1 - 1e-4))
            half = 2.1 * np.nanstd(logit(np.clip(spread[metric], 1e-4, 1 - 1e-4)))
            value[m, f], low[m, f], high[m, f] = middle[metric][0], expit(center - half), expit(center + half)
    return value, low, high


# --- estimates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One seed and model, each [metric, finding]: true values, estimates (NaN: none), limits held (NaN: none)."""

    true: Floats
    value: Floats
    held: Floats
    simple: Floats
    simple_held: Floats
    naive: Floats
    reads_only: Floats


def _noisy(studies: Studies, scores: Floats, chosen: NDArray[np.int64], wanted: Floats) -> NoisySet:
    limits = np.array([np.quantile(scores[:, f], 1 - studies.truth[:, f].mean()) for f in range(scores.shape[1])])
    truth, sampling = np.full(scores.shape, np.nan), np.full(len(scores), np.nan)
    truth[chosen], sampling[chosen] = studies.truth[chosen], wanted[chosen]
    readers = np.full(len(scores), np.nan)
    return NoisySet(studies.findings, scores, scores >= limits, studies.given, truth, sampling, readers)


def trial(studies: Studies, scores: Floats, chosen: NDArray[np.int64], wanted: Floats, seed: int) -> Trial:
    noisy = _noisy(studies, scores, chosen, wanted)
    made = estimate(noisy, seed=seed, draws=200)
    found = table(made)["findings"]
    true, value, held = (np.full((2, scores.shape[1]), np.nan) for _ in range(3))
    for f, finding in enumerate(studies.findings):
        full = studies.truth[None, :, f]
        right = mass_metrics(full, 1 - full, scores[:, f], noisy.decisions[:, f])
        for m, metric in enumerate(METRICS):
            entry, true[m, f] = found[finding][metric], right[metric][0]
            if entry["value"] is not None:
                value[m, f], held[m, f] = entry["value"], entry["low"] <= true[m, f] <= entry["high"]
    simple, low, high = simple_estimate(noisy, seed)
    naive, only = (np.array([made.parts[way][m] for m in METRICS]) for way in ("labels alone", "reads only"))
    return Trial(true, value, held, simple, ((low <= true) & (true <= high)).astype(float), naive, only)


def sampled(
    studies: Studies, scores: Floats, budget: int, seed: int, compare: Floats | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """Reads as `radia reads choose` draws them: positions, and the probability of every study."""
    both = [scores] if compare is None else [scores, compare]
    known = evidence(np.mean([normal_scores(one) for one in both], axis=0), studies.given)
    wanted = sampling_probabilities(known, scores, budget=budget, compare=compare)
    return systematic_sample(wanted, np.random.default_rng(seed)), wanted


def trials(studies: Studies, budget: int, seeds: int) -> list[list[Trial]]:
    """Trials by seed and model; each model has its own reads, chosen with its own scores."""
    return [
        [trial(studies, scores, *sampled(studies, scores, budget, seed), seed) for scores in studies.models.values()]
        for seed in range(seeds)
    ]


def estimates_table(studies: Studies, other: Studies, seeds: int) -> Iterator[str]:
    targets = {50: (0.017, 0.045), 100: (0.012, 0.032)}
    for budget in (50, 100):
        by_seed = trials(studies, budget, seeds)
        yield from _errors(f"{budget} reads of {len(studies.given)}", by_seed, targets[budget])
        if budget == 50:
            yield from _coverage(by_seed)
            yield from _order_table(studies, by_seed, seeds)
    by_seed = trials(other, 94, seeds)
    yield from _errors(f"NIH, 94 reads of {len(other.given)}", by_seed, (0.031, 0.062))
    yield from _coverage(by_seed)
    flat = list(itertools.chain(*by_seed))
    for f, finding in enumerate(other.findings):
        told = float(np.mean([np.isfinite(t.value[0, f]) for t in flat]))
        bias = _mean_of([t.value[:, f] - t.true[:, f] for t in flat])
        positives = int(other.truth[:, f].sum())
        yield (
            f"  {finding}: {positives} positives; with a value in {told:.0%}; "
            f"error AUROC {_mean_of([abs(t.value[0, f] - t.true[0, f]) for t in flat]):.3f} "
            f"F1 {_mean_of([abs(t.value[1, f] - t.true[1, f]) for t in flat]):.3f}; "
            f"bias AUROC {bias[0]:+.3f} F1 {bias[1]:+.3f}"
        )


def _mean_of(values: list[Any]) -> Any:
    return np.nanmean(np.asarray(values, dtype=np.float64), axis=0)


def _coverage(by_seed: list[list[Trial]]) -> Iterator[str]:
    made = list(itertools.chain(*by_seed))
    ours, simple = _mean_of([t.held for t in made]), _mean_of([t.simple_held for t in made])
    for m, metric in enumerate(("AUROC", "F1")):
        yield (
            f"  coverage {metric}: {ours[m].mean():.3f} (least of a finding {ours[m].min():.2f}); "
            f"simple {simple[m].mean():.3f} ({simple[m].min():.2f}); wanted 0.93 to 0.98 (0.90)"
        )


def _errors(title: str, by_seed: list[list[Trial]], targets: tuple[float, float]) -> Iterator[str]:
    made = list(itertools.chain(*by_seed))
    for m, metric in enumerate(("AUROC", "F1")):
        there = np.isfinite([t.value[m] for t in made])
        ways = ([t.value[m] for t in made], [t.simple[m] for t in made], [t.naive[m] for t in made])
        ours, simple, naive, only = (
            float(np.nanmean(np.abs(np.asarray(way) - [t.true[m] for t in made])[there]))
            for way in (*ways, [t.reads_only[m] for t in made])
        )
        yield row(f"{title}: {metric} error", [ours, simple, naive], targets[m]) + f"   reads only {only:.3f}"


# --- the order of two models ----------------------------------------------------------------------------------------


def _order_table(studies: Studies, by_seed: list[list[Trial]], seeds: int) -> Iterator[str]:
    alone = _wrong_order(by_seed)
    yield row("  wrong order, F1 differs >= 0.02, each on its own reads", alone, 0.04)
    for title, chosen_for_both in (("same reads, of the first", False), ("same reads, chosen to compare", True)):
        found = paired_order(studies, min(seeds, 25), chosen_for_both=chosen_for_both)
        yield (
            row(f"    {title}", [found["each"], found["simple"], alone[2]], 0.04) + f"   of mean F1 {found['mean']:.3f}"
        )
    comparisons = sum(
        int((np.abs(a.true[1] - b.true[1]) >= 0.02).sum()) for a, b in itertools.combinations(by_seed[0], 2)
    )
    yield f"    over {comparisons} pairs of a finding's F1 a seed"


def _wrong_order(by_seed: list[list[Trial]]) -> tuple[float, float, float]:
    """How often RADIA, the simple method and the given labels put two models in the wrong order of F1."""
    wrong: tuple[list[bool], ...] = [], [], []
    for of_seed in by_seed:
        for one, two in itertools.combinations(of_seed, 2):
            gap = one.true[1] - two.true[1]
            pairs = ((one.value, two.value), (one.simple, two.simple), (one.naive, two.naive))
            for found, (first, second) in zip(wrong, pairs, strict=True):
                found += list((np.sign(first[1] - second[1]) != np.sign(gap))[np.abs(gap) >= 0.02])
    return float(np.mean(wrong[0])), float(np.mean(wrong[1])), float(np.mean(wrong[2]))


def paired_order(studies: Studies, seeds: int, *, chosen_for_both: bool) -> dict[str, float]:
    """As _wrong_order, by radia.estimate.difference: both models on the same reads and the same drawn truths."""
    wrong: dict[str, list[bool]] = {"each": [], "simple": [], "mean": []}
    for seed in range(seeds):
        for one, two in itertools.combinations(studies.models.values(), 2):
            chosen, wanted = sampled(studies, one, 50, seed, two if chosen_for_both else None)
            first, second = (_noisy(studies, scores, chosen, wanted) for scores in (one, two))
            gap = _f1(studies.truth, second.decisions) - _f1(studies.truth, first.decisions)
            clear = np.abs(gap) >= 0.02
            found = difference(first, two, second.decisions, seed=seed, draws=150)
            ours = np.array([found["findings"][finding]["f1"]["value"] for finding in studies.findings], dtype=float)
            together = normal_scores(one) + normal_scores(two)
            soft = Simple.fitted(together, studies.given, chosen, studies.truth[chosen]).present()
            soft[chosen] = studies.truth[chosen]
            simple = _f1(soft, second.decisions) - _f1(soft, first.decisions)
            wrong["each"] += list((np.sign(ours) != np.sign(gap))[clear])
            wrong["simple"] += list((np.sign(simple) != np.sign(gap))[clear])
            if abs(gap.mean()) >= 0.02:
                wrong["mean"].append(bool(np.sign(found["means"]["all"]["f1"]["value"]) != np.sign(gap.mean())))
    return {name: float(np.mean(found)) for name, found in wrong.items()}


def _f1(present: Floats, decisions: BoolArray) -> Floats:
    """[f], of labels that may be soft."""
    return np.asarray(2 * (present * decisions).sum(axis=0) / (present.sum(axis=0) + decisions.sum(axis=0)))


# --- speed ----------------------------------------------------------------------------------------------------------


def speed_table() -> Iterator[str]:
    """Seconds of processor time, which other work on the machine does not change, and memory."""
    chance = np.random.default_rng(0)
    names = [f"finding {number}" for number in range(14)]
    truth = (chance.random((224_000, 14)) < 0.15).astype(float)
    scores = 1 / (1 + np.exp(-(chance.normal(size=truth.shape) + 2 * truth - 1)))
    given = np.where(chance.random(truth.shape) < 0.1, 1 - truth, truth)
    studies = Studies(tuple(names), given, truth, {})
    start = time.process_time()
    frames = [pd.DataFrame(values, columns=names) for values in (given, scores)]
    find_suspects(*frames)
    ours = time.process_time() - start
    start = time.process_time()
    cleanlab_wrongness(studies, scores)
    usual = time.process_time() - start
    reads = pd.DataFrame(truth[:200], columns=names)
    start = time.process_time()
    find_suspects(*frames, reads=reads)
    seeded = time.process_time() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    yield f"CPU seconds, suspects of 224,000 x 14: {ours:.1f}; with reads {seeded:.1f} (limit 60); cleanlab {usual:.1f}"
    yield f"  most memory so far {most:.2f} GB (limit 4)"
    few = Studies(tuple(names), given[:5000], truth[:5000], {})
    noisy = _noisy(few, scores[:5000], *sampled(few, scores[:5000], 200, 0))
    start = time.process_time()
    table(estimate(noisy))
    took = time.process_time() - start
    yield f"CPU seconds for estimates of 14 findings x 5,000 studies, 200 reads (limit 30): {took:.1f}"


def row(name: str, ways: Sequence[float], target: float) -> str:
    """ways: RADIA, the simple method, the usual way."""
    ours, simple, usual = ways
    return f"{name:<56} {ours:6.3f}   simple {simple:6.3f}   usual {usual:6.3f}   target {target:g}"


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
