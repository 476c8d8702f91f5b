"""Wrong labels, found: out-of-fold probabilities and a ranking of (study, finding) by how likely the label is wrong.

cleanlab (Northcutt et al., Confident Learning, JAIR 2021; Thyagarajan et al., multi-label, 2022) is the base. Nothing
here reads or writes the pipeline's folders.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import LabelError
from radia.findings import UNCERTAIN
from radia.tables import by_id, common_findings, label_values, rows_for, score_values

FloatArray = NDArray[np.float64]
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
    probs: pd.DataFrame,
    *,
    reads: pd.DataFrame | None = None,
    seed: int = 0,
    ranks_only: bool = False,
) -> pd.DataFrame:
    """Every given label, the most suspect first: id, finding, given, probability, score, rank.

    labels, probs: id × findings (indexed by id, or with a column `id`). A blank label has no row. `probability` is
    the calibrated probability that the given label is wrong; an uncertain label (-1) is taken for absent here.
    reads: true labels of some ids. Raises BadLabelValue, UnknownFinding, UnmatchedIds.
    """
    given, scores = by_id(labels, name="labels"), by_id(probs, name="probabilities")
    findings = common_findings(given, scores)
    values = label_values(given, findings, name="labels")
    chances = score_values(
        rows_for(scores, given.index, name="probabilities"), findings, name="probabilities", ranks_only=ranks_only
    )
    wrong = np.full(values.shape, np.nan)
    for column in range(len(findings)):
        wrong[:, column] = _wrong(values[:, column], chances[:, column])
    row, at = np.nonzero(~np.isnan(values))
    suspects = pd.DataFrame(
        {
            "id": given.index.to_numpy()[row],
            "finding": np.array(findings, dtype=object)[at],
            "given": values[row, at],
            "probability": wrong[row, at],
            "score": wrong[row, at],
        }
    ).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return suspects.assign(rank=np.arange(1, len(suspects) + 1))


def _wrong(values: FloatArray, chance: FloatArray) -> FloatArray:
    """cleanlab's label quality on calibrated probabilities, turned over."""
    from cleanlab.rank import get_label_quality_scores
    from scipy.stats import rankdata

    wrong = np.full(len(values), np.nan)
    labelled = ~np.isnan(values)
    given = np.where(values[labelled] == UNCERTAIN, 0.0, values[labelled]).astype(int)
    if given.min(initial=1) == given.max(initial=0):
        wrong[labelled] = np.abs(given - chance[labelled].clip(0, 1))
        return wrong
    calibrated = _platt(rankdata(chance)[labelled] / (len(chance) + 1), given)
    wrong[labelled] = 1 - get_label_quality_scores(given, np.column_stack([1 - calibrated, calibrated]))
    return wrong


def _platt(rank: FloatArray, given: NDArray[np.int64]) -> FloatArray:
    """P(given = 1) by logistic regression on the normal score of the rank (Platt 1999)."""
    from scipy.special import ndtri
    from sklearn.linear_model import LogisticRegression

    normal = ndtri(rank)[:, None]
    probability: FloatArray = LogisticRegression(C=1.0).fit(normal, given).predict_proba(normal)[:, 1]
    return probability
