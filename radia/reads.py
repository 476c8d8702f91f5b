"""Which studies to read again, the blind reads themselves, and how far readers agree.

Three queues come from one budget: *evaluation* (a sample whose probabilities are known: the only one that estimates
may use), *cleaning* (labels most likely wrong) and *repeat* (read again by another reader, for agreement). A read is
one row: study, finding, reader, value. No estimate is made here (radia/estimate.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.agreement import agreement
from radia.errors import LabelError, UnknownFinding, UnmatchedIds
from radia.findings import ABSENT, PRESENT, UNCERTAIN
from radia.posterior import Evidence, draw, evidence, prior_probability, probability
from radia.tables import by_id, common_findings, label_values, read_table, rows_for, score_values

FloatArray = NDArray[np.float64]

EVALUATION, CLEANING, REPEAT = "evaluation", "cleaning", "repeat"
UNIFORM_PART = 0.2
"""Part of the sampling probability that does not depend on the model: bounds every weight."""
SHARES: Mapping[str, float] = {EVALUATION: 0.5, CLEANING: 0.4, REPEAT: 0.1}
LOG_COLUMNS = ("id", "finding", "reader", "value", "queue", "sampling_probability", "model_visible")


# --- which to read --------------------------------------------------------------------------------------------------


def choose(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    *,
    budget: int,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
    ranks_only: bool = False,
) -> pd.DataFrame:
    """`budget` ids for evaluation reads, each with the probability with which it was chosen: id, sampling_probability.

    A probability is the larger the more the unknown truth of the study can move the AUROC and F1 of all findings
    (Neyman allocation on influence functions), mixed with a uniform part. The sample is drawn systematically, so that
    the probabilities are exact. All ids when the budget covers them. Raises LabelError and its kinds.
    """
    given, scores = by_id(labels, name="labels"), by_id(probs, name="probabilities")
    findings = common_findings(given, scores)
    values = label_values(given, findings, name="labels")
    chances = score_values(
        rows_for(scores, given.index, name="probabilities"), findings, name="probabilities", ranks_only=ranks_only
    )
    if budget < 1:
        raise LabelError(f"a budget of {budget} reads: expected at least 1")
    limits = None if thresholds is None else np.array([thresholds.get(finding, np.nan) for finding in findings])
    wanted = sampling_probabilities(evidence(chances, values), chances, budget=budget, thresholds=limits)
    picked = systematic_sample(wanted, np.random.default_rng(seed))
    return pd.DataFrame({"id": given.index.to_numpy()[picked], "sampling_probability": wanted[picked]})


def choose_of_files(labels: Path, probs: Path, *, budget: int, seed: int = 0, ranks_only: bool = False) -> pd.DataFrame:
    """As choose, from CSV files whose first column is the id."""
    return choose(read_table(labels), read_table(probs), budget=budget, seed=seed, ranks_only=ranks_only)


def sampling_probabilities(
    known: Evidence, scores: FloatArray, *, budget: int, thresholds: FloatArray | None = None
) -> FloatArray:
    """Inclusion probabilities [n] that sum to the budget (or to n, if that is less)."""
    studies = len(scores)
    if budget >= studies:
        return np.ones(studies)
    present = prior_probability(known)
    moved = np.zeros(studies)
    for f in range(scores.shape[1]):
        limit = np.nan if thresholds is None else thresholds[f]
        decided = scores[:, f] >= (np.quantile(scores[:, f], 1 - present[:, f].mean()) if np.isnan(limit) else limit)
        for influence in _influences(present[:, f], scores[:, f], decided):
            variance = present[:, f] * (1 - present[:, f]) * influence**2
            moved += variance / max(float(variance.sum()), 1e-300)
    size = np.sqrt(moved)
    wanted = (1 - UNIFORM_PART) * size / size.mean() + UNIFORM_PART
    return _to_budget(wanted, budget)


def systematic_sample(probabilities: FloatArray, chance: np.random.Generator) -> NDArray[np.int64]:
    """Positions drawn with exactly these inclusion probabilities, in a random order (Madow 1949)."""
    order = chance.permutation(len(probabilities))
    reached = np.cumsum(probabilities[order])
    reached *= np.round(reached[-1]) / reached[-1]
    marks = chance.random() + np.arange(int(np.round(reached[-1])))
    picked: NDArray[np.int64] = np.sort(order[np.searchsorted(reached, marks, side="right").clip(0, len(order) - 1)])
    return picked


def queues(
    labels: pd.DataFrame,
    probs: pd.DataFrame,
    suspects: pd.DataFrame,
    *,
    budget: int,
    test: Sequence[str] | None = None,
    shares: Mapping[str, float] = SHARES,
    log: pd.DataFrame | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """One budget in three queues: id, queue, sampling_probability (blank outside the evaluation queue).

    test: ids of the evaluation set (all, if None); evaluation reads come from it, cleaning reads from the rest. Repeats
    are drawn by chance among the evaluation reads of this budget and of the log. Ids of the log are not queued for
    cleaning again.
    """
    given, scores = by_id(labels, name="labels"), by_id(probs, name="probabilities")
    inside = given.index if test is None else given.index[given.index.isin(set(test))]
    counts = {queue: round(budget * shares.get(queue, 0.0)) for queue in (CLEANING, REPEAT)}
    done = set() if log is None else set(log["id"].astype(str))
    first = choose(given.loc[inside], scores, budget=max(1, budget - sum(counts.values())), seed=seed)
    evaluation = first.assign(queue=EVALUATION)
    left = suspects[~suspects["id"].isin(done | set(inside if test is not None else evaluation["id"]))]
    by_study = left.groupby("id", sort=False)["probability"].sum().sort_values(ascending=False, kind="stable")
    cleaning = pd.DataFrame({"id": by_study.index[: counts[CLEANING]], "queue": CLEANING})
    pool = np.array(sorted({*evaluation["id"], *_evaluated(log)}), dtype=object)
    chance = np.random.default_rng(seed + 1)
    again = chance.choice(pool, size=min(counts[REPEAT], len(pool)), replace=False)
    repeats = pd.DataFrame({"id": again, "queue": REPEAT})
    columns = ["id", "queue", "sampling_probability"]
    return pd.concat([evaluation, cleaning, repeats], ignore_index=True)[columns]


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

    Reads are simulated: the truth is drawn from what scores, labels and the reads so far say, a sample is chosen and
    read, and the interval made; the mean half-width over replicates at each budget is the curve, read off by
    interpolation on the logarithmic scale. Budgets count reads beyond those given. Raises UnknownFinding, LabelError.
    """
    from radia.estimate import NoisySet, estimate, table

    given, scores = by_id(labels, name="labels"), by_id(probs, name="probabilities")
    findings = common_findings(given, scores)
    if finding not in findings:
        raise UnknownFinding(finding, findings)
    if not 0 < half_width < 0.5:
        raise LabelError(f"a half-width of {half_width:g}: expected a value between 0 and 0.5")
    values = label_values(given, findings, name="labels")
    chances = score_values(rows_for(scores, given.index, name="probabilities"), findings, name="probabilities")
    known, chance = evidence(chances, values), np.random.default_rng(seed)
    so_far = _known_truth(reads, given.index, findings)
    worlds = _worlds(known, so_far, replicates, chance)
    decided = chances >= np.array([np.quantile(chances[:, f], 1 - worlds[..., f].mean()) for f in range(len(findings))])
    curve: list[tuple[int, float]] = []
    for budget in _budgets(len(given)):
        wanted = sampling_probabilities(known, chances, budget=budget)
        widths = []
        for number, world in enumerate(worlds):
            picked = systematic_sample(wanted, chance)
            truth = so_far.copy()
            truth[picked] = world[picked]
            sampling = np.where(np.isnan(truth).all(axis=1), np.nan, wanted)
            study_set = NoisySet(findings, chances, decided, values, truth, sampling, np.full(len(truth), np.nan))
            found = table(estimate(study_set, seed=seed + number, draws=120))["findings"][finding][metric]
            if found["value"] is not None:
                widths.append((found["high"] - found["low"]) / 2)
        curve.append((budget, float(np.mean(widths)) if widths else float("inf")))
        if curve[-1][1] <= half_width:
            break
    return Plan(finding, metric, half_width, _reached(curve, half_width), tuple(curve))


# --- blind reads ----------------------------------------------------------------------------------------------------


def export_blind(queue: pd.DataFrame, findings: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """The sheet that a reader fills in: ids in a random order and empty findings; no label, score or queue."""
    ids = queue["id"].drop_duplicates().sample(frac=1.0, random_state=seed)
    return pd.DataFrame({"id": ids.to_numpy(), **dict.fromkeys(findings, np.nan)})


def import_reads(
    sheet: pd.DataFrame,
    *,
    reader: str,
    queue: pd.DataFrame,
    log: pd.DataFrame | None = None,
    model_visible: bool = False,
) -> pd.DataFrame:
    """The log with one reader's filled-in sheet added: LOG_COLUMNS, one row per (study, finding, reader).

    Blank cells are not read yet. Raises BadLabelValue for other values than 1, 0, -1; UnmatchedIds for ids that are not
    in the queue; LabelError where the reader's new value contradicts the one already there.
    """
    table = by_id(sheet, name="reads")
    findings = [str(column) for column in table.columns]
    values = label_values(table, findings, name="reads")
    queued = _with_queue(queue).drop_duplicates("id").set_index("id")
    if "sampling_probability" not in queued.columns:
        queued = queued.assign(sampling_probability=np.nan)
    strange = int((~table.index.isin(queued.index)).sum())
    if strange:
        raise UnmatchedIds(f"reads: {strange} of {len(table)} ids were not queued for reading")
    row, at = np.nonzero(~np.isnan(values))
    ids = table.index.to_numpy()[row]
    fresh = pd.DataFrame({"id": ids, "finding": np.array(findings, dtype=object)[at], "reader": reader})
    fresh["value"] = values[row, at]
    fresh["queue"] = queued.loc[ids, "queue"].to_numpy()
    fresh["sampling_probability"] = queued.loc[ids, "sampling_probability"].to_numpy()
    fresh["model_visible"] = model_visible
    if log is None or log.empty:
        return fresh[list(LOG_COLUMNS)]
    together = pd.concat([log, fresh], ignore_index=True)[list(LOG_COLUMNS)]
    same = together.duplicated(["id", "finding", "reader"], keep=False)
    differing = together[same].groupby(["id", "finding", "reader"])["value"].nunique() > 1
    if differing.any():
        raise LabelError(
            f"{int(differing.sum())} reads of this reader contradict reads of the same reader already there: "
            "a read is never overwritten; have the adjudicator decide"
        )
    return together.drop_duplicates(["id", "finding", "reader"], keep="first", ignore_index=True)


def status(queue: pd.DataFrame, log: pd.DataFrame | None, *, readers_needed: int = 2) -> pd.DataFrame:
    """The state of each queued study: id, queue, readers, open (findings that disagree), state.

    States: waiting (nobody), one reader, disagreement (an adjudicator is needed), settled.
    """
    states = queue.drop_duplicates("id")[["id", "queue"]].reset_index(drop=True)
    if log is None or log.empty:
        return states.assign(readers=0, open=0, state="waiting")
    readers = log.groupby("id")["reader"].nunique()
    settled = decide(log, readers_needed=1)
    open_cells = settled[settled["value"].isna()].groupby("id").size()
    states["readers"] = states["id"].map(readers).fillna(0).astype(int)
    states["open"] = states["id"].map(open_cells).fillna(0).astype(int)
    states["state"] = np.select(
        [states["readers"] == 0, states["open"] > 0, states["readers"] < readers_needed],
        ["waiting", "disagreement", "one reader"],
        "settled",
    )
    return states


def decide(log: pd.DataFrame, *, readers_needed: int = 1, adjudicator: str | None = None) -> pd.DataFrame:
    """One decision per (study, finding): id, finding, value, readers, adjudicated.

    The adjudicator's value counts where there is one; else the majority; NaN where readers stand even or fewer than
    `readers_needed` have read. Reads made with the model's output visible do not count.
    """
    blind = log[~log["model_visible"].astype(bool)]
    counted = blind[blind["value"].isin([PRESENT, ABSENT])]
    cells = counted.groupby(["id", "finding"])
    tally = cells["value"].agg(["sum", "count"]).rename(columns={"sum": "for_present", "count": "readers"})
    lead = 2 * tally["for_present"] - tally["readers"]
    value = pd.Series(np.where(lead > 0, PRESENT, np.where(lead < 0, ABSENT, np.nan)), index=tally.index)
    value[tally["readers"] < readers_needed] = np.nan
    last_word = counted[counted["reader"] == adjudicator].set_index(["id", "finding"])["value"]
    value.update(last_word)
    result = pd.DataFrame(
        {"value": value, "readers": tally["readers"], "adjudicated": value.index.isin(last_word.index)}
    )
    return result.reset_index()


def true_labels(
    log: pd.DataFrame, *, queue: str | None = None, readers_needed: int = 1, adjudicator: str | None = None
) -> pd.DataFrame:
    """Decided reads as a table for estimates and training: id, findings, readers (the fewest behind a cell), queue,
    sampling_probability. queue: only reads of this one; estimates need EVALUATION.
    """
    if queue is not None:
        chosen = set(log.loc[log["queue"] == queue, "id"])
        log = log[log["id"].isin(chosen)]
    decided = decide(log, readers_needed=readers_needed, adjudicator=adjudicator)
    wide = decided.pivot(index="id", columns="finding", values="value").rename_axis(columns=None)
    about = log.sort_values("sampling_probability").groupby("id")[["queue", "sampling_probability"]].first()
    return wide.assign(readers=decided.groupby("id")["readers"].min()).join(about).reset_index()


# --- files ----------------------------------------------------------------------------------------------------------


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


def export_of_files(queue: Path, out: Path, *, findings: Sequence[str], seed: int = 0) -> int:
    """Writes the blank sheet of a queue (CSV: id, maybe queue, sampling_probability). Returns its number of rows."""
    sheet = export_blind(read_table(queue).reset_index(), findings, seed=seed)
    sheet.to_csv(out, index=False)
    return len(sheet)


def import_of_files(sheet: Path, log: Path, *, reader: str, queue: Path, model_visible: bool = False) -> dict[str, Any]:
    """Adds one reader's filled-in sheet (CSV) to the log (Parquet, made on first use), and counts what is there."""
    before = pd.read_parquet(log) if log.is_file() else None
    added = import_reads(
        read_table(sheet).reset_index(),
        reader=reader,
        queue=read_table(queue).reset_index(),
        log=before,
        model_visible=model_visible,
    )
    partial = log.with_name(log.name + ".partial")
    added.to_parquet(partial, index=False)
    partial.replace(log)
    return {**summary(added), "new": len(added) - (0 if before is None else len(before))}


def status_of_files(queue: Path, log: Path, *, readers_needed: int = 2) -> dict[str, Any]:
    """How many queued studies are in each state, by queue; and the agreement of readers per finding so far."""
    known = pd.read_parquet(log) if log.is_file() else None
    states = status(_with_queue(read_table(queue).reset_index()), known, readers_needed=readers_needed)
    counts = (states["queue"] + ": " + states["state"]).value_counts().sort_index()
    return {
        "states": {str(state): int(count) for state, count in counts.items()},
        "agreement": [] if known is None else agreement(known).to_dict("records"),
    }


def _with_queue(queue: pd.DataFrame) -> pd.DataFrame:
    return queue if "queue" in queue.columns else queue.assign(queue=EVALUATION)


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


def _evaluated(log: pd.DataFrame | None) -> set[str]:
    return set() if log is None else set(log.loc[log["queue"] == EVALUATION, "id"].astype(str))


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


def summary(log: pd.DataFrame) -> dict[str, Any]:
    """Counts for a person: studies, reads, readers, reads set aside."""
    return {
        "studies": int(log["id"].nunique()),
        "reads": len(log),
        "readers": int(log["reader"].nunique()),
        "model_visible": int(log["model_visible"].astype(bool).sum()),
    }
