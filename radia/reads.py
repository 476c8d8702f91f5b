"""Which studies to read again, and how many: queues with known probabilities, and the power of a number of reads.

Three queues come from one budget: *evaluation* (a stratified sample of the test side whose probabilities are known: the
only reads that estimates may use), *cleaning* (labels of the training side most likely wrong) and *repeat* (read again
by the same reader, for agreement). What was read is radia/read_log.py; estimates are radia/estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import LabelError, UnknownFinding, UnmatchedIds
from radia.findings import UNCERTAIN
from radia.posterior import Evidence, draw, evidence, normal_scores, prior_probability, probability
from radia.read_log import CLEANING, EVALUATION, REPEAT
from radia.tables import by_id, common_findings, label_values, read_table, rows_for, score_values

FloatArray = NDArray[np.float64]

UNIFORM_PART = 0.25
"""Part of the sampling probability that does not depend on the model: bounds every weight."""
VALIDATION = "validation"
SHARES: Mapping[str, float] = {EVALUATION: 0.5, REPEAT: 0.05}
"""Of a budget; what is left is for cleaning."""


# --- which to read --------------------------------------------------------------------------------------------------


def choose(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    budget: int,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
    ranks_only: bool = False,
    compare: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """`budget` ids for evaluation reads, each with the probability with which it was chosen: id, sampling_probability.

    A probability is the larger the more the unknown truth of the study can move the AUROC and F1 of all findings
    (by their influence functions), mixed with a uniform part. The sample is drawn systematically, so that the
    probabilities are exact. All ids when the budget covers them. compare: probabilities of a second model; the reads
    then serve the difference of the two. Raises LabelError and its kinds.
    """
    wanted = design(labels, probs, budget=budget, thresholds=thresholds, ranks_only=ranks_only, compare=compare)
    picked = systematic_sample(np.asarray(wanted, dtype=np.float64), np.random.default_rng(seed))
    return wanted.iloc[picked].reset_index()


def design(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    budget: int,
    thresholds: Mapping[str, float] | None = None,
    ranks_only: bool = False,
    compare: pd.DataFrame | None = None,
) -> pd.Series[float]:
    """The probability with which `choose` takes each study, `sampling_probability` by id. Raises as choose."""
    given = by_id(labels, name="labels")
    models = [by_id(table, name="probabilities") for table in (probs, compare) if table is not None]
    findings = common_findings(given, *models)
    values = label_values(given, findings, name="labels")
    scores = [
        score_values(
            rows_for(model, given.index, name="probabilities"), findings, name="probabilities", ranks_only=ranks_only
        )
        for model in models
    ]
    if budget < 1:
        raise LabelError(f"a budget of {budget} reads: expected at least 1")
    limits = None if thresholds is None else np.array([thresholds.get(finding, np.nan) for finding in findings])
    together = scores[0] if compare is None else np.mean([normal_scores(score) for score in scores], axis=0)
    wanted = sampling_probabilities(
        evidence(together, values),
        scores[0],
        budget=budget,
        thresholds=limits,
        compare=None if compare is None else scores[1],
    )
    return pd.Series(wanted, index=given.index, name="sampling_probability")


def choose_of_files(
    labels: Path, probs: Path, *, budget: int, seed: int = 0, ranks_only: bool = False, compare: Path | None = None
) -> pd.DataFrame:
    """As choose, from CSV files whose first column is the id."""
    second = None if compare is None else read_table(compare)
    return choose(
        read_table(labels), read_table(probs), budget=budget, seed=seed, ranks_only=ranks_only, compare=second
    )


def sampling_probabilities(
    known: Evidence,
    scores: FloatArray,
    *,
    budget: int,
    thresholds: FloatArray | None = None,
    compare: FloatArray | None = None,
) -> FloatArray:
    """Inclusion probabilities [n] that sum to the budget (or to n, if that is less).

    In proportion to the part of the metrics' variance that each study's unknown truth brings, summed over AUROC and F1
    of all findings. Neyman's root of it would be best for weighted means; an imputation learns more from the steeper
    rule (narrower intervals in simulated hospitals). compare: scores [n, f] of a second model; then what counts is how
    far a study moves the difference of the two, so that reads go where the models disagree.
    """
    studies = len(scores)
    if budget >= studies:
        return np.ones(studies)
    present = prior_probability(known)
    moved = np.zeros(studies)
    for f in range(scores.shape[1]):
        limit = np.nan if thresholds is None else thresholds[f]
        influences = _influences(present[:, f], scores[:, f], _decided(present[:, f], scores[:, f], limit))
        if compare is not None:
            second = _influences(present[:, f], compare[:, f], _decided(present[:, f], compare[:, f], np.nan))
            influences = second[0] - influences[0], second[1] - influences[1]
        for influence in influences:
            variance = present[:, f] * (1 - present[:, f]) * influence**2
            moved += variance / max(float(variance.sum()), 1e-300)
    wanted = (1 - UNIFORM_PART) * moved / max(float(moved.mean()), 1e-300) + UNIFORM_PART
    return _to_budget(wanted, budget)


def _decided(present: FloatArray, score: FloatArray, limit: float) -> NDArray[np.bool_]:
    """[n]; where no threshold is known, as many are taken for positive as are expected to be."""
    return np.asarray(score >= (np.quantile(score, 1 - present.mean()) if np.isnan(limit) else limit))


def systematic_sample(
    probabilities: FloatArray, chance: np.random.Generator, *, strata: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Positions drawn with exactly these inclusion probabilities, in a random order (Madow 1949).

    strata: the stratum of each position; the order then goes through one stratum after the other, so that each is
    drawn from as often as its probabilities add up to, but for one.
    """
    order = chance.permutation(len(probabilities))
    if strata is not None:
        order = order[np.argsort(np.asarray(strata, dtype=str)[order], kind="stable")]
    reached = np.cumsum(probabilities[order])
    reached *= np.round(reached[-1]) / reached[-1]
    marks = chance.random() + np.arange(int(np.round(reached[-1])))
    picked: NDArray[np.int64] = np.sort(order[np.searchsorted(reached, marks, side="right").clip(0, len(order) - 1)])
    return picked


@dataclass(frozen=True)
class Draw:
    """What one budget asks for, and what it could have asked for.

    queue: id, queue, sampling_probability (blank outside the evaluation queue), draw; studies that an earlier draw
    chose for evaluation are not asked for again. design: draw, id, sampling_probability of the whole test side, and of
    the validation side where it is drawn from.
    """

    queue: pd.DataFrame
    design: pd.DataFrame


def queues(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    suspects: pd.DataFrame,
    *,
    budget: int,
    test: Sequence[str],
    validation: Sequence[str] = (),
    strata: Mapping[str, str] | None = None,
    shares: Mapping[str, float] = SHARES,
    before: pd.DataFrame | None = None,
    seed: int = 0,
) -> Draw:
    """One budget in three queues. Raises LabelError and its kinds.

    test: ids of the test side, the only ones that evaluation reads come from; cleaning reads come from the rest, the
    studies with most labels expected to be wrong first. validation: ids of that side, from which shares[VALIDATION] of
    the budget is drawn in the same way, into the same queue: epochs are judged by them. strata: of both sides (the
    site, for one). Repeats are drawn by chance among all evaluation reads. before: the queue so far, whose studies are
    not asked for again.
    """
    given = by_id(labels, name="labels")
    inside, beside = (given.index[given.index.isin(set(side))] for side in (test, validation))
    if not len(inside):
        raise LabelError("no study of the test side has a label: nothing can be drawn for evaluation")
    number = 1 if before is None or before.empty else int(before["draw"].max()) + 1
    known = before if before is not None else pd.DataFrame({"id": [], "queue": []}, dtype=object)
    again = round(budget * shares.get(REPEAT, 0.0))
    chance = np.random.default_rng([seed, number])
    asked = {EVALUATION: inside, VALIDATION: beside if shares.get(VALIDATION) else beside[:0]}
    wanted = [
        design(given.loc[side], probs, budget=max(1, round(budget * shares.get(name, 0.0))))
        for name, side in asked.items()
        if len(side)
    ]
    drawn = pd.concat([_systematic(side, chance, strata) for side in wanted]).reset_index()
    evaluated = set(known.loc[known["queue"] == EVALUATION, "id"])
    evaluation = drawn[~drawn["id"].isin(evaluated)].assign(queue=EVALUATION)
    repeats = _repeats(evaluated | set(drawn["id"]), known, again, chance)
    left = max(0, budget - len(evaluation) - len(repeats))
    cleaning = _to_clean(suspects, set(known["id"]) | set(inside) | set(drawn["id"]), left)
    rows = pd.concat([evaluation, cleaning, repeats], ignore_index=True).assign(draw=number)
    columns = ["id", "queue", "sampling_probability", "draw"]
    covered = pd.concat(wanted).reset_index().assign(draw=number)
    return Draw(rows[columns], covered[["draw", "id", "sampling_probability"]])


def _systematic(
    wanted: pd.Series[float], chance: np.random.Generator, strata: Mapping[str, str] | None
) -> pd.Series[float]:
    layers = None if strata is None else [strata.get(study, "") for study in wanted.index]
    return wanted.iloc[systematic_sample(np.asarray(wanted, dtype=np.float64), chance, strata=layers)]


def _to_clean(suspects: pd.DataFrame, without: set[str], count: int) -> pd.DataFrame:
    expected = suspects[~suspects["id"].isin(without)].groupby("id", sort=False)["probability"].sum()
    order = expected.sort_values(ascending=False, kind="stable")
    return pd.DataFrame({"id": order.index[:count].to_numpy(), "queue": CLEANING})


def _repeats(evaluation: set[str], known: pd.DataFrame, count: int, chance: np.random.Generator) -> pd.DataFrame:
    pool = np.array(sorted(evaluation - set(known.loc[known["queue"] == REPEAT, "id"])), dtype=object)
    return pd.DataFrame({"id": chance.choice(pool, size=min(count, len(pool)), replace=False), "queue": REPEAT})


@dataclass(frozen=True)
class Plan:
    """Reads needed for one finding, and the curve: budgets, and the half-width of the 95% interval with each."""

    finding: str
    metric: str
    half_width: float
    needed: int | None
    curve: tuple[tuple[int, float], ...]

    def sentence(self) -> str:
        """What to tell a person."""
        if self.needed is None:
            best = self.curve[-1]
            return f"{self.finding}: even {best[0]} reads leave ±{best[1]:.3f} ({self.metric.upper()})"
        return f"{self.finding}: {self.needed} reads for ±{self.half_width:g} ({self.metric.upper()})"


def plan(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    finding: str,
    half_width: float,
    metric: str = "auroc",
    reads: pd.DataFrame | None = None,
    seed: int = 0,
    replicates: int = 5,
) -> Plan:
    """How many evaluation reads bring the 95% interval of one finding to ± half_width, before anyone reads.

    reads: true labels so far (id and findings); budgets count reads beyond them. Raises UnknownFinding, LabelError.
    """
    if not 0 < half_width < 0.5:
        raise LabelError(f"a half-width of {half_width:g}: expected a value between 0 and 0.5")
    curve: list[tuple[int, float]] = []
    for budget, widths in _simulated(labels, probs, metric=metric, reads=reads, seed=seed, replicates=replicates):
        if finding not in widths:
            raise UnknownFinding(finding, list(widths))
        curve.append((budget, widths[finding]))
        if widths[finding] <= half_width:
            break
    return Plan(finding, metric, half_width, _reached(curve, half_width), tuple(curve))


def power(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    metric: str = "auroc",
    reads: pd.DataFrame | None = None,
    seed: int = 0,
    replicates: int = 3,
) -> dict[str, list[tuple[int, float]]]:
    """The curve of `plan` for every finding at once: further reads, and the half-width of the 95% interval with them.

    Infinite where the metric would not exist. Raises as plan.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for budget, widths in _simulated(labels, probs, metric=metric, reads=reads, seed=seed, replicates=replicates):
        for finding, width in widths.items():
            curves.setdefault(finding, []).append((budget, width))
    return curves


def _simulated(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    metric: str,
    reads: pd.DataFrame | None,
    seed: int,
    replicates: int,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Budgets, and the mean half-width of each finding's interval with that many further reads.

    Reads are simulated: the truth is drawn from what scores, labels and the reads so far say, a sample is chosen and
    read, and the interval made; the half-width is the mean over replicates.
    """
    from radia.estimate import NoisySet, estimate, table

    given, scores = by_id(labels, name="labels"), by_id(probs, name="probabilities")
    findings = common_findings(given, scores)
    values = label_values(given, findings, name="labels")
    chances = score_values(rows_for(scores, given.index, name="probabilities"), findings, name="probabilities")
    known, chance = evidence(chances, values), np.random.default_rng(seed)
    so_far = _known_truth(reads, given.index, findings)
    worlds = _worlds(known, so_far, replicates, chance)
    decided = chances >= np.array([np.quantile(chances[:, f], 1 - worlds[..., f].mean()) for f in range(len(findings))])
    for budget in _budgets(len(given)):
        wanted = sampling_probabilities(known, chances, budget=budget)
        widths: dict[str, list[float]] = {finding: [] for finding in findings}
        for number, world in enumerate(worlds):
            picked = systematic_sample(wanted, chance)
            truth = so_far.copy()
            truth[picked] = world[picked]
            sampling = np.where(np.isnan(truth).all(axis=1), np.nan, wanted)
            study_set = NoisySet(findings, chances, decided, values, truth, sampling, np.full(len(truth), np.nan))
            found = table(estimate(study_set, seed=seed + number, draws=120))["findings"]
            for finding in findings:
                entry = found[finding][metric]
                if entry["value"] is not None:
                    widths[finding].append((entry["high"] - entry["low"]) / 2)
        yield budget, {finding: float(np.mean(seen)) if seen else float("inf") for finding, seen in widths.items()}


def plan_of_files(
    labels: Path,
    probs: Path,
    *,
    finding: str,
    half_width: float,
    metric: str = "auroc",
    reads: Path | None = None,
    seed: int = 0,
) -> Plan:
    """As plan, from CSV files whose first column is the id."""
    known = None if reads is None else read_table(reads)
    return plan(
        read_table(labels),
        read_table(probs),
        finding=finding,
        half_width=half_width,
        metric=metric,
        reads=known,
        seed=seed,
    )


# --- parts ----------------------------------------------------------------------------------------------------------


def _influences(present: FloatArray, score: FloatArray, decided: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """How much AUROC and F1 move, per study [n], when its label goes from absent to present."""
    from scipy.stats import rankdata

    rank = rankdata(score)
    positives, studies = float(present.sum()), len(present)
    pairs = max(positives * (studies - positives), 1e-12)
    above = float(present @ rank) - positives * (positives + 1) / 2
    by_auroc = (rank - positives - 0.5) / pairs - above * (studies - 2 * positives) / pairs**2
    size = max(positives + float(decided.sum()), 1e-12)
    by_f1 = 2 * (decided * size - float(present @ decided)) / size**2
    return np.asarray(by_auroc), np.asarray(by_f1, dtype=np.float64)


def _to_budget(wanted: FloatArray, budget: int) -> FloatArray:
    """Probabilities in proportion to `wanted`, none above 1, that sum to the budget."""
    certain = np.zeros(len(wanted), dtype=bool)
    while True:
        rest = ~certain
        probabilities = np.where(certain, 1.0, wanted * (budget - certain.sum()) / wanted[rest].sum())
        above = rest & (probabilities >= 1)
        if not above.any():
            return probabilities
        certain |= above


def _known_truth(reads: pd.DataFrame | None, ids: pd.Index[str], findings: Sequence[str]) -> FloatArray:
    truth = np.full((len(ids), len(findings)), np.nan)
    if reads is None or reads.empty:
        return truth
    table = by_id(reads, name="reads")
    common = [finding for finding in findings if finding in table.columns]
    values = label_values(table, common, name="reads")
    at = np.asarray(ids.get_indexer(table.index), dtype=np.intp)
    if (at < 0).any():
        raise UnmatchedIds(f"reads: {int((at < 0).sum())} of {len(table)} ids have no label")
    columns = np.array([list(findings).index(finding) for finding in common], dtype=np.intp)
    truth[np.ix_(at, columns)] = np.where(values == UNCERTAIN, np.nan, values)
    return truth


def _worlds(known: Evidence, truth: FloatArray, count: int, chance: np.random.Generator) -> FloatArray:
    """Possible truths [count, n, f] after the reads so far."""
    rows = np.flatnonzero((~np.isnan(truth)).any(axis=1))
    if len(rows):
        parameters = draw(known, rows, truth[rows], draws=count, sweeps=2, chance=chance)
        present = probability(parameters, known.z, known.states)
    else:
        present = np.repeat(prior_probability(known)[None], count, axis=0)
    worlds = (chance.random(present.shape) < present).astype(np.float64)
    return np.where(np.isnan(truth), worlds, truth)


def _budgets(studies: int) -> list[int]:
    steps = [25, 50, 100, 200, 400, 800, 1600, 3200]
    return [budget for budget in steps if budget < studies] or [max(1, studies // 2)]


def _reached(curve: Sequence[tuple[int, float]], half_width: float) -> int | None:
    """The budget at which the curve falls to the half-width."""
    for position, (budget, width) in enumerate(curve):
        if width <= half_width:
            if position == 0:
                return budget
            before, wider = curve[position - 1]
            part = np.log(wider / half_width) / max(float(np.log(wider / max(width, 1e-9))), 1e-9)
            return int(np.ceil(before * (budget / before) ** part))
    return None
