"""Metrics of a model when labels are noisy and only a few studies were read again: values, limits, what they rest on.

The number estimated is the metric that these studies would give if every one had been read. Four estimators:

- *imputation*: radia/posterior.py draws the truth of every unread study from scores, given labels and reads, pooled
  over findings; the metric of each draw is one draw of the metric (multiple imputation, Rubin 1987).
- *doubly robust*: the imputed probabilities, cross-fitted, corrected by the reads' residuals weighted by 1 / sampling
  probability (Robins, Rotnitzky & Zhao 1994; as prediction-powered inference, Angelopoulos et al. 2023). Unbiased
  whatever the noise, but wide.
- *reads only*: the metric of the reads with weights 1 / sampling probability (Hájek 1971).
- *labels alone*: the given labels taken for true. Never reported as the value; shown to say what they would have told.

Rule, per finding: imputation, drawn towards the doubly robust estimate as far as the two contradict each other by more
than chance explains (`_agreement`). Reads must be a sample with known probabilities; BiasedReads is raised otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import BadLabelValue, BiasedReads, LabelError, UnknownFinding, UnmatchedIds
from radia.findings import ABSENT, PRESENT, UNCERTAIN
from radia.metrics import METRICS, NAMED_SETS, calibration_bin, counted_metrics
from radia.posterior import Evidence, draw, evidence, normal_scores, probability
from radia.tables import by_id, common_findings, label_values, read_table, rows_for, score_values

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

ESTIMATED = (*METRICS, "prevalence")
NEED_PROBABILITIES = ("brier", "ece")
NEED_POSITIVES = ("auroc", "auprc", "f1", "mcc", "sensitivity", "ppv")
NEED_NEGATIVES = ("auroc", "auprc", "mcc", "specificity", "npv")
"""Metrics that are not reported where no read was positive, or none negative: they would rest on the prior alone."""
WIDENING, WIDENING_OF_RANKS = 1.15, 1.0
"""Allowance for what the imputation model cannot express: limits lie so much farther out than the draws' own. None for
metrics of the whole order (AUROC, AUPRC), on which single studies near the threshold have little weight. Chosen so that
limits hold about as often as they say in simulated hospitals with other noise and other slopes than the model's, and
checked on public labels that the same people could see; benchmarks/noise.py measures the coverage."""
PRIOR_READS = 2
"""Limits go out further by Student's t with the reads of the rarer kind and these as degrees of freedom: a shape that
three positive reads seem to fit may be another."""
FEW_READS = 5
"""Fewer reads of one kind are named in the sentence beside the number."""
CELLS = 8_000_000
"""Drawn labels held at once; more draws or studies are made in parts."""


@dataclass(frozen=True)
class NoisySet:
    """One model's scores on studies of which few were read.

    scores [n, f]; decisions [n, f]; given [n, f] of 1, 0, -1, NaN; truth [n, f] of 1, 0, NaN where unread; sampling
    [n], the probability with which a read study was chosen; readers [n], how many readers stand behind a read.
    """

    findings: tuple[str, ...]
    scores: FloatArray
    decisions: BoolArray
    given: FloatArray
    truth: FloatArray
    sampling: FloatArray
    readers: FloatArray
    ranks_only: bool = False
    set_aside: int = 0

    @property
    def rows(self) -> NDArray[np.int64]:
        """The studies with at least one read finding."""
        return np.flatnonzero((~np.isnan(self.truth)).any(axis=1))


@dataclass(frozen=True)
class Estimates:
    """Draws [m, f] of each metric, and the name of what they rest on per finding."""

    noisy: NoisySet
    draws: Mapping[str, FloatArray]
    parts: Mapping[str, Mapping[str, FloatArray]]
    """Estimator -> metric -> [f]: the single estimators' values, for comparison."""
    weight: FloatArray
    """[f]: how far the doubly robust estimate was followed, 0 to 1."""


def estimate(noisy: NoisySet, *, seed: int = 0, draws: int = 400, others: Sequence[FloatArray] = ()) -> Estimates:
    """Draws of every metric of every finding. others: scores [n, f] of more models that help to tell the truth.

    Raises BiasedReads where a read has no sampling probability, LabelError where nothing was read.
    """
    rows = noisy.rows
    if not len(rows):
        raise LabelError("no study was read: nothing can be said beyond what the given labels say")
    if not (noisy.sampling[rows] > 0).all():
        raise BiasedReads(
            f"{int((~(noisy.sampling[rows] > 0)).sum())} of {len(rows)} reads have no sampling probability: they were "
            "chosen by a model or by hand, and would make the estimate better or worse than it is; use reads from the "
            "evaluation queue (radia reads choose)"
        )
    chance = np.random.default_rng(seed)
    known = _known(noisy, others)
    parameters = draw(known, rows, noisy.truth[rows], draws=draws, sweeps=4, chance=chance)
    imputed = {metric: np.empty((draws, len(noisy.findings))) for metric in ESTIMATED}
    for f in range(len(noisy.findings)):
        for metric, values in _imputed(noisy, known, parameters, f, chance).items():
            imputed[metric][:, f] = values
    robust, spread = _doubly_robust(noisy, known, chance)
    weight = _agreement(imputed, robust, spread)
    combined = {
        metric: np.where(
            _supported(noisy, metric), _drawn_towards(imputed[metric], robust[metric], spread[metric], weight), np.nan
        )
        for metric in ESTIMATED
    }
    parts = {
        "imputation": {metric: _median(imputed[metric]) for metric in ESTIMATED},
        "doubly robust": robust,
        "reads only": _by_finding(noisy, _reads_only),
        "labels alone": _by_finding(noisy, _labels_alone),
    }
    return Estimates(noisy, combined, parts, weight)


def _supported(noisy: NoisySet, metric: str) -> BoolArray:
    """[f]: whether the reads hold what this metric cannot be known without."""
    positive, negative = (noisy.truth == PRESENT).any(axis=0), (noisy.truth == ABSENT).any(axis=0)
    return np.asarray((positive | (metric not in NEED_POSITIVES)) & (negative | (metric not in NEED_NEGATIVES)))


# --- metrics of many labellings at once -----------------------------------------------------------------------------


def mass_metrics(
    present: FloatArray, absent: FloatArray, score: FloatArray, decision: BoolArray
) -> dict[str, FloatArray]:
    """Every metric of m labellings of n studies at once, each [m].

    present, absent: [m, n], how much of each study counts as positive and as negative (0 and 1 for labels, fractions
    for soft ones, weights for samples; a correction may make them negative). A study is not compared with itself.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(present[:, order], axis=1)[:, ends]
    false = np.cumsum(absent[:, order], axis=1)[:, ends]
    positives, negatives = hits[:, -1], false[:, -1]
    steps, wrong = np.diff(hits, axis=1, prepend=0.0), np.diff(false, axis=1, prepend=0.0)
    itself = np.einsum("mn,mn->m", present, absent)
    counts = np.empty((len(present), 4))
    counts[:, 0], counts[:, 1] = present @ decision, absent @ decision
    counts[:, 2], counts[:, 3] = positives - counts[:, 0], negatives - counts[:, 1]
    total = positives + negatives
    bins = np.zeros((len(score), 10))
    bins[np.arange(len(score)), calibration_bin(score.clip(0, 1))] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        above = (steps * (negatives[:, None] - false + 0.5 * wrong)).sum(axis=1) - 0.5 * itself
        values = {
            "auroc": above / (positives * negatives - itself),
            "auprc": (steps * np.nan_to_num(hits / (hits + false))).sum(axis=1) / positives,
            **counted_metrics(counts),
            "brier": (present @ (1 - score) ** 2 + absent @ score**2) / total,
            "ece": np.abs((absent * score + present * (score - 1)) @ bins).sum(axis=1) / total,
            "prevalence": positives / total,
        }
    return {metric: np.where(np.isfinite(found), found, np.nan) for metric, found in values.items()}


# --- the estimators -------------------------------------------------------------------------------------------------


def _known(noisy: NoisySet, others: Sequence[FloatArray]) -> Evidence:
    """With other models, their mean with this one is the score, and how far this one leaves the mean a covariate."""
    if not others:
        return evidence(noisy.scores, noisy.given)
    own = normal_scores(noisy.scores)
    together = np.mean([own, *(normal_scores(scores) for scores in others)], axis=0)
    return evidence(together, noisy.given, extra=(own - together)[..., None])


def _imputed(
    noisy: NoisySet, known: Evidence, parameters: FloatArray, f: int, chance: np.random.Generator
) -> dict[str, FloatArray]:
    at = slice(f, f + 1)
    read = ~np.isnan(noisy.truth[:, f])
    parts = []
    for some in np.array_split(parameters, max(1, parameters.shape[0] * len(read) // CELLS)):
        present = probability(some[:, at], known.z[:, at], known.states[:, at])[..., 0]
        labels = (chance.random(present.shape) < present).astype(np.float64)
        labels[:, read] = noisy.truth[read, f]
        parts.append(mass_metrics(labels, 1 - labels, noisy.scores[:, f], noisy.decisions[:, f]))
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in ESTIMATED}


def _doubly_robust(
    noisy: NoisySet, known: Evidence, chance: np.random.Generator, *, folds: int = 5, replicates: int = 60
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Values and standard errors, metric -> [f]; the errors from a bootstrap of the reads' residuals."""
    present, rows = _cross_fitted(noisy, known, chance, folds), noisy.rows
    values = {metric: np.full(len(noisy.findings), np.nan) for metric in ESTIMATED}
    spread = {metric: np.full(len(noisy.findings), np.nan) for metric in ESTIMATED}
    for f in range(len(noisy.findings)):
        read = rows[~np.isnan(noisy.truth[rows, f])]
        if len(read) < 2:
            continue
        weight = 1 / noisy.sampling[read]
        times = np.vstack(
            [np.ones(len(read)), chance.multinomial(len(read), np.full(len(read), 1 / len(read)), replicates)]
        )
        times *= weight
        times *= len(present) / times.sum(axis=1, keepdims=True)
        soft = np.tile(present[:, f], (replicates + 1, 1))
        soft[:, read] += times * (noisy.truth[read, f] - present[read, f])
        found = mass_metrics(soft, 1 - soft, noisy.scores[:, f], noisy.decisions[:, f])
        left = np.sqrt(max(0.0, 1 - len(read) / len(present)))
        for metric in ESTIMATED:
            values[metric][f] = np.clip(found[metric][0], *_bounds(metric))
            spread[metric][f] = left * _deviation(np.clip(found[metric][1:, None], *_bounds(metric)))[0]
    return values, spread


def _cross_fitted(noisy: NoisySet, known: Evidence, chance: np.random.Generator, folds: int) -> FloatArray:
    """P(present) [n, f]; that of a read study comes from a model that did not see its read."""
    rows = chance.permutation(noisy.rows)
    total = np.zeros(noisy.scores.shape)
    own = np.zeros(noisy.scores.shape)
    parts = np.array_split(rows, min(folds, len(rows)))
    for part in parts:
        rest = np.setdiff1d(rows, part)
        parameters = draw(known, rest, noisy.truth[rest], draws=20, sweeps=0, chance=chance)
        present = np.mean([probability(some[None], known.z, known.states)[0] for some in parameters], axis=0)
        total += present / len(parts)
        own[part] = present[part]
    total[rows] = own[rows]
    return total


def _agreement(
    imputed: Mapping[str, FloatArray], robust: Mapping[str, FloatArray], spread: Mapping[str, FloatArray]
) -> FloatArray:
    """[f], 0 where the doubly robust estimate agrees with imputation, towards 1 where it cannot."""
    weights = []
    for metric in ("auroc", "f1", "prevalence"):
        gap = np.square(robust[metric] - _median(imputed[metric]))
        noise = np.square(spread[metric]) + np.square(_deviation(imputed[metric]))
        with np.errstate(divide="ignore", invalid="ignore"):
            weights.append(np.nan_to_num(np.maximum(0.0, gap - 4 * noise) / gap))
    return np.asarray(np.max(weights, axis=0))


def _drawn_towards(imputed: FloatArray, robust: FloatArray, spread: FloatArray, weight: FloatArray) -> FloatArray:
    """The draws moved by `weight` towards the doubly robust value, and as wide as that mixture is uncertain."""
    middle, own = _median(imputed), _deviation(imputed)
    with np.errstate(divide="ignore", invalid="ignore"):
        wider = np.nan_to_num(np.hypot((1 - weight) * own, weight * np.nan_to_num(spread)) / own, nan=1.0, posinf=1.0)
    moved = middle + np.nan_to_num(weight * (robust - middle))
    return np.asarray(np.where(weight > 0, moved + (imputed - middle) * wider, imputed))


def _median(draws: FloatArray) -> FloatArray:
    """Median over draws [m, f], NaN without a warning where a metric does not exist."""
    exists = np.isfinite(draws).any(axis=0)
    return np.where(exists, np.nanmedian(np.where(exists, draws, 0.0), axis=0), np.nan)


def _deviation(draws: FloatArray) -> FloatArray:
    """Standard deviation over draws [m, f], NaN without a warning where a metric does not exist."""
    known = np.isfinite(draws)
    exists = known.any(axis=0)
    return np.where(exists, np.nanstd(np.where(known | ~exists, np.where(exists, draws, 0.0), np.nan), axis=0), np.nan)


def _reads_only(noisy: NoisySet, f: int) -> dict[str, FloatArray]:
    truth = noisy.truth[:, f]
    weight = np.where(np.isnan(truth), 0.0, 1 / np.where(noisy.sampling > 0, noisy.sampling, np.inf))
    present = weight * np.nan_to_num(truth)
    return mass_metrics(present[None], (weight - present)[None], noisy.scores[:, f], noisy.decisions[:, f])


def _labels_alone(noisy: NoisySet, f: int) -> dict[str, FloatArray]:
    present = (noisy.given[:, f] == PRESENT).astype(np.float64)
    certain = (noisy.given[:, f] != UNCERTAIN).astype(np.float64)
    return mass_metrics(
        (present * certain)[None], ((1 - present) * certain)[None], noisy.scores[:, f], noisy.decisions[:, f]
    )


def _by_finding(noisy: NoisySet, one: Any) -> dict[str, FloatArray]:
    found = [one(noisy, f) for f in range(len(noisy.findings))]
    return {metric: np.array([values[metric][0] for values in found]) for metric in ESTIMATED}


# --- what is reported -----------------------------------------------------------------------------------------------


def estimate_files(
    *,
    noisy: Path,
    reads: Path | None,
    probs: Path,
    thresholds: Path | None = None,
    others: Sequence[Path] = (),
    compare: Path | None = None,
    compare_thresholds: Path | None = None,
    ranks_only: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """The JSON of `radia evaluate --noisy` (DESIGN.md, Contracts). Findings are the columns common to the files.

    reads: id, true labels, and `sampling_probability` unless they are a simple random sample. `readers` (a number) and
    `model_visible` (1 where the reader saw the model's answer; such reads are set aside) may stand there too.
    Without reads, what can and cannot be said in words. others: scores of further models, which help to tell the truth.
    compare: scores of a second model; then `difference` holds its metrics minus the first one's (compare_thresholds:
    its thresholds, if others than the first one's). Raises LabelError and its kinds.
    """
    given, scores = read_table(noisy), read_table(probs)
    read = given.iloc[:0] if reads is None else read_table(reads, may_be_empty=True)
    studies = noisy_set(given, scores, read, thresholds=_limits_of(thresholds, scores), ranks_only=ranks_only)
    if not len(studies.rows):
        return without_reads(studies)
    more = [
        score_values(rows_for(read_table(path), given.index, name=path.name), studies.findings, name=path.name)
        for path in others
    ]
    found = table(estimate(studies, seed=seed, others=more))
    if compare is None:
        return found
    rival = read_table(compare)
    limits = _limits_of(compare_thresholds or thresholds, rival)
    second = noisy_set(given, rival, read, thresholds=limits, ranks_only=ranks_only)
    if second.findings != studies.findings:
        raise UnknownFinding(", ".join(sorted({*studies.findings} ^ {*second.findings})), studies.findings)
    return {**found, "difference": difference(studies, second.scores, second.decisions, seed=seed)}


def _limits_of(thresholds: Path | None, scores: pd.DataFrame) -> Mapping[str, float]:
    if thresholds is None:
        return {}
    from radia.evaluate.files import read_thresholds

    return read_thresholds(thresholds, known=tuple(scores.columns))


def noisy_set(
    given: pd.DataFrame,
    scores: pd.DataFrame,
    reads: pd.DataFrame,
    *,
    thresholds: Mapping[str, float] | None = None,
    ranks_only: bool = False,
) -> NoisySet:
    """Tables, each indexed by id or with a column `id`, lined up. Raises BadLabelValue, UnmatchedIds, BiasedReads."""
    labels, chances, read = by_id(given, name="labels"), by_id(scores, name="probabilities"), by_id(reads, name="reads")
    findings = common_findings(labels, chances, read)
    unknown = int((~read.index.isin(labels.index)).sum())
    if unknown:
        raise UnmatchedIds(f"reads: {unknown} of {len(read)} ids have no label")
    blind = ~_flag(read, "model_visible")
    seen = read[blind]
    at = np.asarray(labels.index.get_indexer(seen.index), dtype=np.intp)
    found = label_values(seen, findings, name="reads")
    truth = np.full((len(labels), len(findings)), np.nan)
    truth[at] = np.where(found == UNCERTAIN, np.nan, found)
    values = score_values(
        rows_for(chances, labels.index, name="probabilities"), findings, name="probabilities", ranks_only=ranks_only
    )
    limits = np.array([(thresholds or {}).get(finding, 0.5) for finding in findings])
    return NoisySet(
        findings=findings,
        scores=values,
        decisions=values >= limits,
        given=label_values(labels, findings, name="labels"),
        truth=truth,
        sampling=_spread_over(len(labels), at, _sampling(seen, len(labels))),
        readers=_spread_over(len(labels), at, _readers(seen)),
        ranks_only=ranks_only,
        set_aside=int((~blind).sum()),
    )


def table(estimates: Estimates) -> dict[str, Any]:
    """The JSON: the metrics of DESIGN.md, and beside them what each finding's numbers rest on."""
    noisy = estimates.noisy
    findings = {finding: _finding_json(estimates, f) for f, finding in enumerate(noisy.findings)}
    sets = {"all": noisy.findings, **NAMED_SETS}
    return {
        "n": len(noisy.scores),
        "findings": findings,
        "means": {name: _means_json(estimates, members) for name, members in sets.items()},
        "reads": {
            "n": len(noisy.rows),
            "readers": _reader_counts(noisy),
            "seen_with_model_output_and_left_out": noisy.set_aside,
        },
    }


def without_reads(noisy: NoisySet) -> dict[str, Any]:
    """The JSON of `table` where nothing was read: no metric, no interval, and words for what can and cannot be said.

    `estimators` still holds what the given labels alone would say, under that name.
    """
    why = "no study was read: the given labels cannot say how wrong they are"
    nothing = {metric: {"value": None, "low": None, "high": None, "why": why} for metric in ESTIMATED}
    alone = _by_finding(noisy, _labels_alone)
    findings: dict[str, dict[str, Any]] = {}
    for f, finding in enumerate(noisy.findings):
        naive = {metric: _number(alone[metric][f]) for metric in ("auroc", "f1", "prevalence")}
        told = "" if naive["auroc"] is None else f"; the given labels alone would say {naive['auroc']:.2f}"
        findings[finding] = {
            "n": len(noisy.scores),
            "positives": None,
            **nothing,
            "reads": 0,
            "read_positives": 0,
            "estimator": "none",
            "estimators": {"labels alone": naive},
            "support": f"AUROC unknown: none of {len(noisy.scores)} re-read{told}, which is not an estimate of it",
        }
    return {
        "n": len(noisy.scores),
        "findings": findings,
        "means": {name: {m: {**nothing[m], "over": 0} for m in ESTIMATED} for name in ("all", *NAMED_SETS)},
        "reads": {"n": 0, "readers": {}, "seen_with_model_output_and_left_out": noisy.set_aside},
        "support": (
            "Nothing was re-read. What can be said: how well the scores agree with the given labels (`labels alone`). "
            "What cannot: how often the model is right, or which of two models is better; where labels are wrong, a "
            "good model looks worse than it is, by an amount that only reads can tell, and an interval around such a "
            "figure would not know of it. `radia reads plan` says how many reads are needed."
        ),
    }


def difference(
    noisy: NoisySet, scores: FloatArray, decisions: BoolArray, *, seed: int = 0, draws: int = 400
) -> dict[str, Any]:
    """Second model minus the first (`noisy`) on the same drawn truths: findings and means, each value, low, high, p.

    scores, decisions: [n, f] of the second model. Both models are judged by the same reads and the same draws of what
    was not read, inferred from the mean of both: what makes both look good or bad at once falls out. `p` is twice the
    smaller posterior tail. Null where no read was positive. Reads chosen for it (`radia.reads.choose` with compare)
    tell two models apart much better than reads chosen for one. Raises BiasedReads.
    """
    rows = noisy.rows
    if not len(rows) or not (noisy.sampling[rows] > 0).all():
        raise BiasedReads("a comparison needs reads with known sampling probabilities")
    chance = np.random.default_rng(seed)
    known = _known(noisy, [scores])
    parameters = draw(known, rows, noisy.truth[rows], draws=draws, sweeps=4, chance=chance)
    gaps = {metric: np.empty((draws, len(noisy.findings))) for metric in METRICS}
    for f in range(len(noisy.findings)):
        state = chance.bit_generator.state
        first = _imputed(noisy, known, parameters, f, chance)
        chance.bit_generator.state = state
        second = _imputed(_with_model(noisy, scores, decisions), known, parameters, f, chance)
        for metric in METRICS:
            supported = bool(_supported(noisy, metric)[f])
            gaps[metric][:, f] = second[metric] - first[metric] if supported else np.nan
    sets = {"all": noisy.findings, **NAMED_SETS}
    return {
        "findings": {
            finding: {metric: _gap_json(gaps[metric][:, f], _rarer(noisy)[f]) for metric in METRICS}
            for f, finding in enumerate(noisy.findings)
        },
        "means": {
            name: {metric: _mean_gap_json(noisy, gaps[metric], members) for metric in METRICS}
            for name, members in sets.items()
        },
    }


def noise_rates(
    noisy: NoisySet,
    *,
    groups: Mapping[str, BoolArray] | None = None,
    seed: int = 0,
    draws: int = 400,
) -> dict[str, dict[str, dict[str, Any]]]:
    """How often a given label is wrong, per group (site, report language, labeler cue ...; `all`) and finding.

    groups: name -> [n] of booleans. `wrong` over all given labels, `missed` (given absent) among the truly present,
    `invented` among the given present: each value, low, high; `confusion` counts the reads by given label and truth.
    """
    rows, chance = noisy.rows, np.random.default_rng(seed)
    known = evidence(noisy.scores, noisy.given)
    parameters = draw(known, rows, noisy.truth[rows], draws=draws, sweeps=4, chance=chance)
    everyone = {"all": np.ones(len(noisy.scores), dtype=bool), **(groups or {})}
    rates: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in everyone}
    for f, finding in enumerate(noisy.findings):
        present = probability(parameters[:, f : f + 1], known.z[:, f : f + 1], known.states[:, f : f + 1])[..., 0]
        labels = chance.random(present.shape) < present
        read = ~np.isnan(noisy.truth[:, f])
        labels[:, read] = noisy.truth[read, f] > 0
        for name, inside in everyone.items():
            rates[name][finding] = _rates(labels[:, inside], noisy.given[inside, f], noisy.truth[inside, f])
    return rates


def _rates(labels: BoolArray, given: FloatArray, truth: FloatArray) -> dict[str, Any]:
    present, sure = given == PRESENT, given != UNCERTAIN
    read = ~np.isnan(truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "wrong": _limits_json((labels != present)[:, sure].sum(axis=1) / np.float64(sure.sum())),
            "missed": _limits_json((labels & sure & ~present).sum(axis=1) / (labels & sure).sum(axis=1)),
            "invented": _limits_json((~labels & present).sum(axis=1) / np.float64(present.sum())),
            "confusion": _confusion(given[read], truth[read]),
        }


def _finding_json(estimates: Estimates, f: int) -> dict[str, Any]:
    noisy = estimates.noisy
    read = ~np.isnan(noisy.truth[:, f])
    positives = int(np.nansum(noisy.truth[:, f]))
    negatives = int((noisy.truth[:, f] == ABSENT).sum())
    entry: dict[str, Any] = {
        "n": len(noisy.scores),
        "positives": round(float(np.median(estimates.draws["prevalence"][:, f])) * len(noisy.scores)),
    }
    for metric in ESTIMATED:
        if noisy.ranks_only and metric in NEED_PROBABILITIES:
            entry[metric] = {"value": None, "low": None, "high": None, "why": "the scores are only ranks"}
            continue
        why = None if _supported(noisy, metric)[f] else _unsupported(int(read.sum()), positives, negatives)
        entry[metric] = _limits_json(estimates.draws[metric][:, f], why, metric, rarer=min(positives, negatives))
    weight = float(estimates.weight[f])
    entry |= {
        "reads": int(read.sum()),
        "read_positives": positives,
        "estimator": "imputation" if weight == 0 else f"imputation, {weight:.0%} of the way to doubly robust",
        "estimators": {
            name: {metric: _number(values[metric][f]) for metric in ("auroc", "f1", "prevalence")}
            for name, values in estimates.parts.items()
        },
    }
    return {**entry, "support": _sentence(estimates, f, entry)}


def _unsupported(reads: int, positives: int, negatives: int) -> str:
    missing = " and ".join(kind for kind, count in (("positive", positives), ("negative", negatives)) if not count)
    return f"no {missing} among {reads} reads: it would rest on assumptions alone; more reads are needed"


def _sentence(estimates: Estimates, f: int, entry: Mapping[str, Any]) -> str:
    noisy, auroc = estimates.noisy, entry["auroc"]
    alone = estimates.parts["labels alone"]["auroc"][f]
    told = "" if np.isnan(alone) else f"; the given labels alone would have said {alone:.2f}"
    read = f"{entry['reads']} of {len(noisy.scores)} re-read{_by_readers(noisy, f)}"
    if auroc["value"] is None:
        return f"AUROC unknown: {read}, {auroc['why']}{told}"
    rarer = int(_rarer(noisy)[f])
    kind = "present" if entry["read_positives"] == rarer else "absent"
    few = f", only {rarer} of them {kind}" if rarer < FEW_READS else ""
    return f"AUROC {auroc['value']:.2f} ({auroc['low']:.2f} to {auroc['high']:.2f}): {read}{few}{told}"


def _by_readers(noisy: NoisySet, f: int) -> str:
    """ "by two readers", "by 1 to 3 readers", or nothing where it is not known."""
    readers = noisy.readers[~np.isnan(noisy.truth[:, f])]
    known = readers[~np.isnan(readers)].astype(int)
    if not len(known):
        return ""
    few, many = int(known.min()), int(known.max())
    if few < many:
        return f" by {few} to {many} readers"
    words = {1: "one reader", 2: "two readers", 3: "three readers", 4: "four readers", 5: "five readers"}
    return f" by {words.get(few, f'{few} readers')}"


def _means_json(estimates: Estimates, members: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    rarer = _rarer(estimates.noisy)
    for metric in ESTIMATED:
        if estimates.noisy.ranks_only and metric in NEED_PROBABILITIES:
            result[metric] = {"value": None, "low": None, "high": None, "why": "the scores are only ranks", "over": 0}
            continue
        draws, kept = _mean_draws(estimates.noisy, estimates.draws[metric], members)
        result[metric] = {
            **_limits_json(draws, None if len(kept) else "no finding has a value", metric, rarer=rarer[kept].sum()),
            "over": len(kept),
        }
    return result


def _mean_draws(noisy: NoisySet, draws: FloatArray, members: Sequence[str]) -> tuple[FloatArray, list[int]]:
    """Draws [m] of the mean over these findings, as far as they are here and exist; and which they are."""
    kept = [f for f, name in enumerate(noisy.findings) if name in members and np.isfinite(draws[:, f]).any()]
    if not kept:
        return np.full(len(draws), np.nan), []
    filled = np.where(np.isfinite(draws[:, kept]), draws[:, kept], np.nanmedian(draws[:, kept], axis=0))
    return np.asarray(filled.mean(axis=1)), kept


def _rarer(noisy: NoisySet) -> NDArray[np.int64]:
    """[f], the reads of the rarer kind."""
    return np.asarray(np.minimum((noisy.truth == PRESENT).sum(axis=0), (noisy.truth == ABSENT).sum(axis=0)))


def _limits_json(
    draws: FloatArray, why: str | None = None, metric: str = "f1", *, rarer: float = np.inf
) -> dict[str, Any]:
    """Mean and 95% limits of draws; null where the metric does not exist. rarer: reads of the rarer kind behind it.

    The mean, since a median of so few and so coarse steps (an F1 of ten positives) often stays where it is when models
    differ.
    """
    known = draws[np.isfinite(draws)]
    if len(known) < 0.5 * len(draws):
        return {"value": None, "low": None, "high": None, "why": why or "it does not exist: one class, or no decision"}
    low, high = _widened(np.quantile(known, [0.025, 0.5, 0.975]), metric, rarer)
    return {"value": float(np.clip(known.mean(), low, high)), "low": low, "high": high}


def _widened(quantiles: FloatArray, metric: str, rarer: float) -> tuple[float, float]:
    """Limits from low, middle, high, moved out on the logit scale of the metric's bounds."""
    from scipy.special import expit, logit, ndtri, stdtrit

    bounds = _bounds(metric)
    span = bounds[1] - bounds[0]
    factor = WIDENING_OF_RANKS if metric in ("auroc", "auprc") else WIDENING
    factor *= float(stdtrit(rarer + PRIOR_READS, 0.975) / ndtri(0.975))
    low, _, high = (float(value) for value in quantiles)
    if low == high:
        return low, high
    scaled = np.clip((quantiles - bounds[0]) / span, 1e-6, 1 - 1e-6)
    center = logit(scaled[1])
    out = bounds[0] + span * expit(center + factor * (logit(scaled) - center))
    return float(min(out[0], low)), float(max(out[2], high))


def _gap_json(draws: FloatArray, rarer: float) -> dict[str, Any]:
    known = draws[np.isfinite(draws)]
    tail = min(float((known >= 0).mean()), float((known <= 0).mean())) if len(known) else 1.0
    return {
        **_limits_json(draws, metric="mcc", rarer=rarer),
        "p": min(1.0, 2 * tail + 1 / (len(known) + 1)) if len(known) else None,
    }


def _mean_gap_json(noisy: NoisySet, gaps: FloatArray, members: Sequence[str]) -> dict[str, Any]:
    draws, kept = _mean_draws(noisy, gaps, members)
    return _gap_json(draws, _rarer(noisy)[kept].sum())


def _bounds(metric: str) -> tuple[float, float]:
    return (-1.0, 1.0) if metric == "mcc" else (0.0, 1.0)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _confusion(given: FloatArray, truth: FloatArray) -> dict[str, dict[str, int]]:
    kinds = {
        "present": given == PRESENT,
        "absent": given == 0.0,
        "uncertain": given == UNCERTAIN,
        "blank": np.isnan(given),
    }
    return {
        name: {"present": int((truth[of] == 1).sum()), "absent": int((truth[of] == 0).sum())}
        for name, of in kinds.items()
        if of.any()
    }


def _with_model(noisy: NoisySet, scores: FloatArray, decisions: BoolArray) -> NoisySet:
    from dataclasses import replace

    return replace(noisy, scores=scores, decisions=decisions)


def _sampling(reads: pd.DataFrame, studies: int) -> FloatArray:
    """Sampling probabilities [r]; without a column, the reads are taken for a simple random sample.

    Raises BiasedReads where the reads' queue says otherwise, or a probability is missing; BadLabelValue outside (0, 1].
    """
    if "queue" in reads.columns and (reads["queue"].astype(str) != "evaluation").any():
        raise BiasedReads("reads of other queues than 'evaluation' were chosen by a model: leave them out of estimates")
    if "sampling_probability" not in reads.columns:
        return np.full(len(reads), len(reads) / studies)
    values = pd.to_numeric(reads["sampling_probability"], errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(values).any():
        missing = f"{int(np.isnan(values).sum())} of {len(values)} reads"
        raise BiasedReads(f"{missing} have no sampling_probability: they cannot be weighted")
    if ((values <= 0) | (values > 1)).any():
        raise BadLabelValue("reads: sampling_probability must lie above 0 and not above 1")
    return values


def _readers(reads: pd.DataFrame) -> FloatArray:
    if "readers" not in reads.columns:
        return np.full(len(reads), np.nan)
    return pd.to_numeric(reads["readers"], errors="coerce").to_numpy(dtype=np.float64)


def _reader_counts(noisy: NoisySet) -> dict[str, int]:
    """How many studies were read by how many readers."""
    counts = noisy.readers[noisy.rows]
    known = counts[~np.isnan(counts)].astype(int)
    return {str(number): int((known == number).sum()) for number in np.unique(known)}


def _flag(reads: pd.DataFrame, column: str) -> BoolArray:
    if column not in reads.columns:
        return np.zeros(len(reads), dtype=bool)
    return pd.to_numeric(reads[column], errors="coerce").fillna(0).to_numpy(dtype=np.float64) > 0


def _spread_over(studies: int, at: NDArray[np.intp], values: FloatArray) -> FloatArray:
    whole = np.full(studies, np.nan)
    whole[at] = values
    return whole
