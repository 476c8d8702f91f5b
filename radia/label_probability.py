"""How likely a finding is really there, given what its label says: the soft targets of training.

A blank is not a negative, and "uncertain" means something else for every finding: on the CheXpert test studies 54% of
uncertain atelectases are there and 3% of uncertain consolidations. Blind reads tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.errors import BiasedReads, LabelError, UnmatchedIds
from radia.findings import ABSENT, PRESENT, UNCERTAIN
from radia.tables import common_findings, label_values, read_table

FloatArray = NDArray[np.float64]

_SAMPLING = "sampling_probability"
STATED: Mapping[str, float] = {"present": PRESENT, "absent": ABSENT, "uncertain": UNCERTAIN, "blank": float("nan")}
"""What a label can say, and how it is written."""
_USUAL = {"present": 0.8, "absent": 0.05, "uncertain": 0.4, "blank": 0.1}
"""Where reads are few a stated value means about this; it weighs as much as _USUAL_READS reads over all findings."""
_USUAL_READS = 2.0
_HALVINGS = 16
_STRENGTHS = np.geomspace(1.0, 300.0, 16)
_MEANS = (np.arange(50) + 0.5) ** 2 / 2500
"""Finer where rates are low, as most are."""


@dataclass(frozen=True)
class LabelProbabilities:
    """P(present) by finding and stated value, all [f, 4] in the order of STATED, with 95% limits.

    reads: effective number of reads behind each.
    """

    findings: tuple[str, ...]
    probability: FloatArray
    low: FloatArray
    high: FloatArray
    reads: FloatArray

    def of(self, given: FloatArray) -> FloatArray:
        """P(present) of each label [n, f] of 1, 0, -1, NaN. Other values between 0 and 1 are probabilities and stay."""
        soft = given.astype(np.float64, copy=True)
        for s, value in enumerate(STATED.values()):
            cells = _says(given, value)
            soft[cells] = np.broadcast_to(self.probability[:, s], given.shape)[cells]
        return soft

    @staticmethod
    def from_json(written: Mapping[str, Any], findings: Sequence[str]) -> LabelProbabilities:
        """What `as_json` gave, for these findings. Raises KeyError, TypeError, ValueError where it is not that."""
        numbers = [
            [[float(written[finding][name][key]) for name in STATED] for finding in findings]
            for key in ("value", "low", "high", "reads")
        ]
        probability, low, high, reads = (np.array(part).reshape(len(findings), len(STATED)) for part in numbers)
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError("probabilities outside [0, 1]")
        return LabelProbabilities(tuple(findings), probability, low, high, reads)

    def as_json(self) -> dict[str, Any]:
        """{finding: {stated value: {value, low, high, reads}}}."""
        return {
            finding: {
                name: {
                    "value": float(self.probability[f, s]),
                    "low": float(self.low[f, s]),
                    "high": float(self.high[f, s]),
                    "reads": float(self.reads[f, s]),
                }
                for s, name in enumerate(STATED)
            }
            for f, finding in enumerate(self.findings)
        }


def soft_targets(given: FloatArray, reads: FloatArray, *, sampling: FloatArray | None = None) -> FloatArray:
    """P(present) [n, f] of every label `given` [n, f], learnt from `reads` [n, f] (1, 0, NaN: not read); 1 and 0 where
    it was read. sampling [n]: as in label_probabilities."""
    findings = tuple(str(f) for f in range(given.shape[1]))
    learnt = label_probabilities(given, reads, findings=findings, sampling=sampling).of(given)
    return np.where(np.isnan(reads), learnt, reads)


def label_probabilities(
    given: FloatArray, reads: FloatArray, *, findings: Sequence[str], sampling: FloatArray | None = None
) -> LabelProbabilities:
    """P(present | finding, stated value) from studies that have a label and a read.

    given: [n, f] of 1, 0, -1, NaN; reads: [n, f] of 1, 0, NaN. sampling [n]: the probability with which a study was
    chosen to be read; each read then weighs 1 / it, and counts as so many reads as its weights are worth (Kish 1965).

    A beta-binomial model per stated value: findings share a mean and a strength, both averaged over their posterior
    (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3), so that a finding with few reads leans on the others.
    Raises LabelError where nothing was read, BiasedReads where a read study has no sampling probability.
    """
    read = ~np.isnan(reads)
    if not read.any():
        raise LabelError(
            "soft targets are learnt from blind reads, and there is none: read some, or choose another policy"
        )
    weight = _weights(read, sampling)
    shape = (len(findings), len(STATED))
    hits, size = np.zeros(shape), np.zeros(shape)
    for s, value in enumerate(STATED.values()):
        cells = read & _says(given, value)
        total = np.where(cells, weight[:, None], 0.0)
        squares = np.square(total).sum(axis=0)
        kish = np.divide(total.sum(axis=0) ** 2, squares, out=np.zeros(len(findings)), where=squares > 0)
        part = np.divide(
            (total * np.nan_to_num(reads)).sum(axis=0),
            total.sum(axis=0),
            out=np.zeros(len(findings)),
            where=squares > 0,
        )
        hits[:, s], size[:, s] = part * kish, kish
    columns = [_shrunk(hits[:, s], size[:, s], _USUAL[name]) for s, name in enumerate(STATED)]
    probability, low, high = (np.column_stack([column[k] for column in columns]) for k in range(3))
    return LabelProbabilities(tuple(findings), probability, low, high, size)


def probabilities_of_files(given: Path, reads: Path) -> LabelProbabilities:
    """As label_probabilities, from CSV files whose first column is the id, for the findings and ids of both."""
    labels, read = read_table(given), read_table(reads)
    findings = common_findings(labels, read.drop(columns=[_SAMPLING], errors="ignore"))
    ids = read.index[read.index.isin(labels.index)]
    if not len(ids):
        raise UnmatchedIds(f"none of the {len(read)} ids of {reads.name} has a label in {given.name}")
    sampling = read.loc[ids, _SAMPLING].to_numpy(dtype=np.float64) if _SAMPLING in read else None
    return label_probabilities(
        label_values(labels.loc[ids], findings, name=given.name),
        label_values(read.loc[ids], findings, name=reads.name, allowed=(PRESENT, ABSENT)),
        findings=findings,
        sampling=sampling,
    )


def _says(given: FloatArray, value: float) -> NDArray[np.bool_]:
    return np.isnan(given) if np.isnan(value) else given == value


def _weights(read: NDArray[np.bool_], sampling: FloatArray | None) -> FloatArray:
    if sampling is None:
        return np.ones(len(read))
    unknown = read.any(axis=1) & ~(sampling > 0)
    if unknown.any():
        raise BiasedReads(
            f"{int(unknown.sum())} read studies have no sampling probability: a model may have chosen them"
        )
    return np.where(sampling > 0, 1 / np.where(sampling > 0, sampling, 1.0), 0.0)


def _shrunk(hits: FloatArray, size: FloatArray, usual: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Posterior mean and 95% limits [f] of a rate per finding."""
    from scipy.special import betainc, betaln

    mean, strength = (grid.ravel() for grid in np.meshgrid(_MEANS, _STRENGTHS, indexing="ij"))
    a, b = mean * strength, (1 - mean) * strength
    evidence = (betaln(a[:, None] + hits, b[:, None] + size - hits) - betaln(a, b)[:, None]).sum(axis=1)
    evidence += (usual * _USUAL_READS) * np.log(mean) + ((1 - usual) * _USUAL_READS) * np.log1p(-mean)
    evidence += -np.log1p(strength)  # a prior that is flat in s / (1 + s): neither no pooling nor all of it is favoured
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    kept = weight > 1e-4 * weight.max()
    a, b, weight = a[kept], b[kept], weight[kept] / weight[kept].sum()
    above, below = a[:, None] + hits, b[:, None] + size - hits
    centre = weight @ (above / (above + below))
    limits = [_quantile(above, below, weight, level, betainc) for level in (0.025, 0.975)]
    return centre, limits[0], limits[1]


def _quantile(above: FloatArray, below: FloatArray, weight: FloatArray, level: float, betainc: Any) -> FloatArray:
    """The quantile of each mixture of betas [m, f], by bisection."""
    low, high = np.zeros(above.shape[1]), np.ones(above.shape[1])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        under = weight @ betainc(above, below, middle) < level
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.asarray((low + high) / 2)
