"""Wrong labels, found: out-of-fold probabilities and a ranking of (study, finding) by how likely the label is wrong.

cleanlab (Northcutt et al., Confident Learning, JAIR 2021; Thyagarajan et al., multi-label, 2022) is the base. Nothing
here reads or writes the pipeline's folders.

Where the model's probabilities come from noisy labels they are too timid, and where they come from elsewhere they are
not calibrated at all. So cleanlab is given P(truly present) of radia/posterior.py: ranks of the scores, a prior that
was not fitted to these labels, the scores of other findings, and whatever true reads exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import LabelError, UnknownFinding, UnmatchedIds
from radia.findings import UNCERTAIN
from radia.posterior import Evidence, draw, evidence, normal_scores, prior_probability, probability
from radia.tables import by_id, common_findings, label_values, read_table, rows_for, score_values

FloatArray = NDArray[np.float64]
UNCERTAIN_AS: Mapping[str, float] = {"Atelectasis": 1.0, "Edema": 1.0}
"""What training takes an uncertain label for, as in Irvin et al. 2019; other findings: absent."""
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Ridge strengths tried by out_of_fold, per finding: multiples of the mean squared feature, from strong to weak."""


def out_of_fold(
    features: NDArray[np.floating],
    labels: FloatArray,
    groups: NDArray[np.generic],
    *,
    folds: int = 5,
    seed: int = 0,
) -> FloatArray:
    """Probabilities [n, f] of each label by models that saw no study of the same patient.

    A logistic regression with a ridge penalty per finding, on standardised features. The penalty of each finding is
    the one with the least out-of-fold log loss among PENALTIES.

    features: [n, c]. labels: [n, f] of 1 and 0; NaN (blank) and -1 (uncertain) do not train, but get a probability.
    groups: [n], the patient of each row. Raises LabelError where there are fewer patients than folds.
    """
    fold = patient_folds(labels, groups, folds=folds, seed=seed)
    known = np.isin(labels, (0.0, 1.0))
    target = np.where(known, labels, 0.0).astype(np.float32)
    weight = known.astype(np.float32)
    candidates = np.empty((len(PENALTIES), *labels.shape))
    for held_out in range(folds):
        inside, outside = fold != held_out, fold == held_out
        mean, spread = features[inside].mean(axis=0), features[inside].std(axis=0)
        spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, np.inf)
        train = ((features[inside] - mean) / spread).astype(np.float32)
        test = ((features[outside] - mean) / spread).astype(np.float32)
        for number, probabilities in enumerate(_ridge_path(train, target[inside], weight[inside], test)):
            candidates[number, outside] = probabilities
    safe = np.clip(candidates, 1e-6, 1 - 1e-6)
    losses = -(weight * (target * np.log(safe) + (1 - target) * np.log(1 - safe))).sum(axis=1)
    best = losses.argmin(axis=0)
    chosen: FloatArray = np.take_along_axis(candidates, best[None, None, :], axis=0)[0]
    return chosen


def patient_folds(labels: FloatArray, groups: NDArray[np.generic], *, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row: a patient lies in one fold, and the positives of rare findings are dealt evenly.

    Patients are ordered by their rarest positive finding, by number of studies, then by chance, and dealt in turn
    (a one-pass form of Sechidis et al., On the stratification of multi-label data, 2011).
    """
    patients, patient_of = np.unique(groups, return_inverse=True)
    if len(patients) < folds:
        raise LabelError(f"{len(patients)} patients cannot be dealt into {folds} folds")
    positive = np.zeros((len(patients), labels.shape[1]), dtype=bool)
    np.logical_or.at(positive, patient_of, labels == 1.0)
    rarity = positive.sum(axis=0).argsort(kind="stable")
    by_rarity = positive[:, rarity]
    rarest = np.where(by_rarity.any(axis=1), by_rarity.argmax(axis=1), labels.shape[1])
    chance = np.random.default_rng(seed).random(len(patients))
    order = np.lexsort((chance, -np.bincount(patient_of), rarest))
    fold_of_patient = np.empty(len(patients), dtype=np.int64)
    fold_of_patient[order] = np.arange(len(patients)) % folds
    return fold_of_patient[patient_of]


def _ridge_path(
    train: NDArray[np.float32], target: NDArray[np.float32], weight: NDArray[np.float32], test: NDArray[np.float32]
) -> list[FloatArray]:
    """Probabilities on `test` for each of PENALTIES; all findings at once, each penalty starts from the one before."""
    from scipy.optimize import minimize

    studies, width = train.shape
    findings = target.shape[1]
    counts = np.maximum(weight.sum(axis=0), 1.0)
    rate = (np.sum(weight * target, axis=0) + 0.5) / (counts + 1.0)
    start = np.vstack([np.zeros((width, findings)), np.log(rate / (1 - rate))[None]])
    scale = float(np.square(train).sum() / max(studies, 1))

    def loss(flat: FloatArray, penalty: float) -> tuple[float, FloatArray]:
        weights = flat.reshape(width + 1, findings).astype(np.float32)
        logits = train @ weights[:-1] + weights[-1]
        entropy = np.logaddexp(0.0, logits) - target * logits
        residual = weight * (0.5 * (1.0 + np.tanh(0.5 * logits)) - target) / counts
        value = float((weight * entropy / counts).sum(dtype=np.float64))
        value += 0.5 * penalty * float(np.square(weights[:-1]).sum(dtype=np.float64))
        gradient = np.vstack([train.T @ residual + penalty * weights[:-1], residual.sum(axis=0)[None]])
        return value, gradient.astype(np.float64).ravel()

    results = []
    for strength in PENALTIES:
        fitted = minimize(
            loss, start.ravel(), args=(strength * scale,), jac=True, method="L-BFGS-B", options={"maxiter": 60}
        )
        start = fitted.x.reshape(width + 1, findings)
        logits = test @ start[:-1] + start[-1]
        results.append(0.5 * (1.0 + np.tanh(0.5 * logits)))
    return results


def find_suspects(
    labels: pd.DataFrame,
    probs: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    reads: pd.DataFrame | None = None,
    seed: int = 0,
    ranks_only: bool = False,
    uncertain_as: Mapping[str, float] = UNCERTAIN_AS,
) -> pd.DataFrame:
    """Every given label, the most suspect first: id, finding, given, probability, score, rank, suggested, evidence.

    labels, probs: id × findings (indexed by id, or with a column `id`); several probs are an ensemble, of which the
    mean of the normal scores counts. A blank label has no row. `probability` is the calibrated probability that the
    given label is wrong (an uncertain one: the value that training takes it for); `score` is 1 - cleanlab's
    self-confidence on calibrated probabilities.
    reads: true labels of some ids (blank or -1: not decided); they train the calibration, and a label that was read
    has probability 0 or 1. Raises BadLabelValue, UnknownFinding, UnmatchedIds.
    """
    given = by_id(labels, name="labels")
    models = [by_id(table, name="probabilities") for table in ([probs] if isinstance(probs, pd.DataFrame) else probs)]
    findings = common_findings(given, *models)
    values = label_values(given, findings, name="labels")
    scores = _ensemble(models, given.index, findings, ranks_only=ranks_only)
    truth = _truth_of(reads, given.index, findings)
    known = evidence(scores, values, extra=_other_findings(scores))
    present = present_probability(known, truth, seed=seed)
    taken = np.where(values == UNCERTAIN, [uncertain_as.get(finding, 0.0) for finding in findings], values)
    row, at = np.nonzero(~np.isnan(values))
    cells = taken[row, at].astype(np.int64), present[row, at]
    wrong = _turned_over(*cells)
    read = truth[row, at]
    settled = ~np.isnan(read)
    chance = np.where(settled, read != cells[0], wrong).astype(np.float64)
    order = np.argsort(-chance, kind="stable")
    suspects = pd.DataFrame(
        {
            "id": given.index.to_numpy()[row],
            "finding": np.array(findings, dtype=object)[at],
            "given": values[row, at],
            "probability": chance,
            "score": chance,
        }
    )
    suspects["suggested"] = np.where(settled, read, (cells[1] > 0.5).astype(np.float64))
    suspects["evidence"] = np.where(settled, "read again", _evidence_texts(known.z)[row, at])
    suspects = suspects.iloc[order].reset_index(drop=True)
    suspects.insert(5, "rank", np.arange(1, len(suspects) + 1))
    return suspects


def suspects_of_files(
    labels: Path,
    probs: Path | Sequence[Path],
    *,
    reads: Path | None = None,
    ranks_only: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """As find_suspects, from CSV files whose first column is the id. Several probs are an ensemble."""
    tables = [read_table(path) for path in ([probs] if isinstance(probs, Path) else probs)]
    known = None if reads is None else read_table(reads)
    return find_suspects(read_table(labels), tables, reads=known, seed=seed, ranks_only=ranks_only)


def study_order(suspects: pd.DataFrame) -> pd.DataFrame:
    """Studies for whole-study reading, the one with the most labels expected wrong first: id, expected_wrong, worst."""
    by_study = suspects.groupby("id", sort=False)["probability"]
    first = suspects.drop_duplicates("id").set_index("id")["finding"]
    order = pd.DataFrame({"expected_wrong": by_study.sum(), "worst": first})
    return order.sort_values("expected_wrong", ascending=False, kind="stable").reset_index()


def present_by_study(suspects: pd.DataFrame) -> pd.DataFrame:
    """P(truly present), indexed by study with the findings as columns, from what find_suspects says of every label."""
    taken = np.where(
        suspects["given"] == UNCERTAIN, suspects["finding"].map(UNCERTAIN_AS).fillna(0.0), suspects["given"]
    )
    chance = np.where(taken == 1, 1 - suspects["probability"], suspects["probability"])
    cells = suspects.assign(present=chance)
    return cells.pivot(index="id", columns="finding", values="present").rename_axis(index="study", columns=None)


def present_probability(known: Evidence, truth: FloatArray, *, seed: int, draws: int = 48) -> FloatArray:
    """P(truly present) [n, f]: the mean over posterior draws after the reads, truth [n, f] with NaN where unread."""
    rows = np.flatnonzero((~np.isnan(truth)).any(axis=1))
    if not len(rows):
        return prior_probability(known)
    parameters = draw(known, rows, truth[rows], draws=draws, sweeps=2, chance=np.random.default_rng(seed))
    result = np.empty(known.z.shape)
    step = max(1, 4_000_000 // (draws * known.z.shape[1]))
    for start in range(0, len(result), step):
        part = slice(start, start + step)
        result[part] = probability(parameters, known.z[part], known.states[part]).mean(axis=0)
    return result


def _ensemble(
    models: Sequence[pd.DataFrame], ids: pd.Index[str], findings: tuple[str, ...], *, ranks_only: bool
) -> FloatArray:
    """Scores [n, f] of one model, or the mean normal score of several."""
    scores = [
        score_values(rows_for(table, ids, name="probabilities"), findings, name="probabilities", ranks_only=ranks_only)
        for table in models
    ]
    return scores[0] if len(scores) == 1 else np.mean([normal_scores(score) for score in scores], axis=0)


def _other_findings(scores: FloatArray) -> FloatArray | None:
    """[n, f, 1]: how high the model scores the study's other findings, on average. Reads show whether that matters."""
    findings = scores.shape[1]
    if findings < 2:
        return None
    normal = normal_scores(scores)
    others: FloatArray = ((normal.sum(axis=1, keepdims=True) - normal) / (findings - 1))[..., None]
    return others


def _truth_of(reads: pd.DataFrame | None, ids: pd.Index[str], findings: tuple[str, ...]) -> FloatArray:
    """The reads as [n, f] with NaN where there is none. Raises UnmatchedIds for reads of unknown ids."""
    truth = np.full((len(ids), len(findings)), np.nan)
    if reads is None or reads.empty:
        return truth
    table = by_id(reads, name="reads")
    unknown = int((~table.index.isin(ids)).sum())
    if unknown:
        raise UnmatchedIds(f"reads: {unknown} of {len(table)} ids have no label")
    common = [finding for finding in findings if finding in table.columns]
    if not common:
        raise UnknownFinding(str(table.columns[0]), findings)
    values = label_values(table, common, name="reads")
    columns = np.array([findings.index(finding) for finding in common], dtype=np.intp)
    at = np.asarray(ids.get_indexer(table.index), dtype=np.intp)
    truth[np.ix_(at, columns)] = np.where(values == UNCERTAIN, np.nan, values)
    return truth


def _turned_over(given: NDArray[np.int64], present: FloatArray) -> FloatArray:
    """1 - cleanlab's label quality (self-confidence) of binary labels, given P(present)."""
    from cleanlab.rank import get_self_confidence_for_each_label

    if not len(given):
        return np.zeros(0)
    both = np.column_stack([1 - present, present])
    return np.asarray(1 - get_self_confidence_for_each_label(given, both), dtype=np.float64)


def _evidence_texts(z: FloatArray) -> NDArray[np.object_]:
    from scipy.special import ndtr

    texts = np.array([f"score above {percent}% of studies" for percent in range(101)], dtype=object)
    chosen: NDArray[np.object_] = texts[np.floor(100 * ndtr(z)).astype(np.int64)]
    return chosen
