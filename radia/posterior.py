"""What is truly there, given a model's scores, noisy labels and a few true reads: one Bayesian model, drawn from.

For finding f and study i, with z the normal score of the rank of the model's score among all studies:

    logit P(present) = A(prevalence_f, slope_f) + slope_f · z + Σ_s effect_fs · (state_is − mean state_s)

The intercept A makes the mean over all studies the prevalence, so that the three kinds of coefficients keep their
meaning. `state` says what the given label is (present, uncertain, explicitly absent; blank or absent is the base).
logit prevalence, log slope and effects are each a shared shift plus a small deviation of the finding, with Gaussian
priors: a partial pooling (Gelman & Hill 2007, chapter 12) that lets 50 reads serve 14 findings.

The priors' centres: the prevalence of the given labels; a slope of 2.5 (an AUROC near 0.91, typical of chest X-ray
models; a steeper one where the model already tells the noisy labels apart more steeply); an effect of a given
"present" of 0.5. Centres and widths are constants that no call fits. The people who chose them had seen public labels:
widths were compared on half of the CheXpert test studies, on a part of NIH's expert labels and on simulated hospitals,
and those were kept that did better on all three. Figures measured on these files are a little too good for that reason.

Draws: a Laplace approximation, then Gibbs sweeps in which the shared shift is drawn exactly and each finding's
coefficients by elliptical slice sampling (Murray, Adams & MacKay 2010). No files here; estimate, suspects and reads
build on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.findings import ABSENT, PRESENT, UNCERTAIN

FloatArray = NDArray[np.float64]

SLOPE = 2.5
PREVALENCE_SPREAD = (0.5, 0.8)
"""Standard deviations of the shared shift and of a finding's own deviation, on the logit scale."""
SLOPE_SPREAD = (0.4, 0.3)
"""One model's findings resemble each other in how well it tells them (on the logarithmic scale) more than models do."""
EFFECT_OF_PRESENT = 0.5
EFFECT_SPREAD = (1.0, 0.5)
EXTRA_SPREAD = (0.4, 0.2)
_LOG_SLOPE = (-2.5, 3.2)
_LOGIT_PREVALENCE = (-9.0, 9.0)


@dataclass(frozen=True)
class Evidence:
    """What is known of every study before anyone reads.

    z: [n, f] normal scores. states: [n, f, s] centred indicators of the given label. center, shared, own: the prior,
    [f, p] and [p] with p = 2 + s (logit prevalence, log slope, effects).
    """

    z: FloatArray
    states: FloatArray
    center: FloatArray
    shared: FloatArray
    own: FloatArray


def normal_scores(scores: FloatArray) -> FloatArray:
    """Each column's ranks (ties share one) through the inverse normal distribution. [n, f] -> [n, f]."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    normal: FloatArray = ndtri(rankdata(scores, axis=0) / (len(scores) + 1))
    return normal


def evidence(scores: FloatArray, given: FloatArray, *, extra: FloatArray | None = None) -> Evidence:
    """What model scores [n, f] and given labels [n, f] (1, 0, -1, NaN for blank) say before anyone reads.

    extra: [n, f, e], more covariates whose effects the reads must show (prior centre 0).
    """
    from scipy.special import logit

    z = normal_scores(scores)
    soft = np.where(given == PRESENT, 1.0, np.where(given == UNCERTAIN, 0.5, 0.0))
    kinds, effects = [given == PRESENT], [EFFECT_OF_PRESENT]
    if (given == UNCERTAIN).any():
        kinds.append(given == UNCERTAIN)
        effects.append(0.5 * EFFECT_OF_PRESENT)
    if np.isnan(given).any() and (given == ABSENT).any():
        kinds.append(given == ABSENT)
        effects.append(-0.5 * EFFECT_OF_PRESENT)
    states = np.stack(kinds, axis=2).astype(np.float64)
    spreads = [EFFECT_SPREAD] * len(effects)
    if extra is not None:
        states = np.concatenate([states, extra], axis=2)
        effects += [0.0] * extra.shape[2]
        spreads += [EXTRA_SPREAD] * extra.shape[2]
    states -= states.mean(axis=0)
    prevalence = (soft.sum(axis=0) + 0.5) / (len(soft) + 1)
    slope = (np.maximum(slope_of_given(z, soft), 0.0) ** 6 + SLOPE**6) ** (1 / 6)
    center = np.column_stack([logit(prevalence), np.log(slope), np.tile(effects, (z.shape[1], 1))])
    spread = np.array([PREVALENCE_SPREAD, SLOPE_SPREAD, *spreads])
    return Evidence(z, states, center, spread[:, 0], spread[:, 1])


def slope_of_given(z: FloatArray, soft: FloatArray) -> FloatArray:
    """The slope [f] of a logistic regression of the given labels on z, each finding alone, with a weak ridge."""
    from scipy.special import expit, logit

    intercept = logit((soft.sum(axis=0) + 0.5) / (len(soft) + 1))
    slope = np.zeros(z.shape[1])
    for _ in range(25):
        chance = expit(intercept + slope * z)
        weight, residual = chance * (1 - chance), soft - chance
        a, b, c = weight.sum(axis=0) + 1e-9, (weight * z).sum(axis=0), (weight * z * z).sum(axis=0) + 1.0
        up, along = residual.sum(axis=0), (residual * z).sum(axis=0) - slope
        step = np.array([c * up - b * along, a * along - b * up]) / (a * c - b * b)
        step /= np.maximum(1.0, np.abs(step).max(axis=0))
        intercept, slope = intercept + step[0], slope + step[1]
        if np.abs(step).max() < 1e-7:
            break
    return slope


def prior_probability(known: Evidence) -> FloatArray:
    """P(present) [n, f] at the prior's centre: what can be said with no read at all."""
    chance: FloatArray = probability(known.center[None], known.z, known.states)[0]
    return chance


def probability(draws: FloatArray, z: FloatArray, states: FloatArray) -> FloatArray:
    """P(present) [m, n, f] for parameter draws [m, f, p]."""
    from scipy.special import expit

    chance: FloatArray = expit(_logits(draws, z, states))
    return chance


def draw(
    known: Evidence,
    rows: NDArray[np.int64],
    truth: FloatArray,
    *,
    draws: int = 200,
    sweeps: int = 8,
    chance: np.random.Generator,
) -> FloatArray:
    """Posterior draws [draws, f, p] of the parameters after the reads: truth [r, f] (NaN where not read) of `rows`."""
    z, states = known.z[rows], known.states[rows]
    mode, precision = _laplace(known, z, states, truth)
    root = np.linalg.cholesky(np.linalg.inv(precision))
    shape = (draws, *known.center.shape)
    current = mode + (chance.normal(size=(draws, mode.size)) @ root.T).reshape(shape)
    sign = np.where(np.isnan(truth), 0.0, 2 * truth - 1)
    likelihood = _log_likelihood(current, z, states, sign)
    weight = 1 / known.shared**2 + len(known.center) / known.own**2
    for _ in range(sweeps):
        pull = ((current - known.center) / known.own**2).sum(axis=1) / weight
        shift = pull + chance.normal(size=pull.shape) / np.sqrt(weight)
        middle = known.center + shift[:, None]
        current, likelihood = _slice(current, likelihood, middle, known.own, z, states, sign, chance)
    return current


def _logits(draws: FloatArray, z: FloatArray, states: FloatArray) -> FloatArray:
    start = intercept(draws[..., 1], draws[..., 0])
    logits = start[:, None] + np.exp(draws[:, None, :, 1]) * z
    for number in range(states.shape[2]):
        logits += draws[:, None, :, 2 + number] * states[..., number]
    return np.asarray(logits)


def _log_likelihood(draws: FloatArray, z: FloatArray, states: FloatArray, sign: FloatArray) -> FloatArray:
    """[m, f]; sign [r, f] is 1 for a positive read, -1 for a negative one, 0 for none."""
    chance = -np.logaddexp(0.0, -_logits(draws, z, states) * sign)
    return np.asarray(np.where(sign == 0, 0.0, chance).sum(axis=1))


def _slice(
    current: FloatArray,
    likelihood: FloatArray,
    middle: FloatArray,
    spread: FloatArray,
    z: FloatArray,
    states: FloatArray,
    sign: FloatArray,
    chance: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """One elliptical slice step of every (draw, finding) under the prior N(middle, spread²)."""
    offset = current - middle
    partner = chance.normal(size=current.shape) * spread
    bar = likelihood + np.log(chance.random(likelihood.shape))
    angle = chance.random(likelihood.shape) * 2 * np.pi
    low, high = angle - 2 * np.pi, angle.copy()
    result, level = current.copy(), likelihood.copy()
    waiting = np.ones(likelihood.shape, dtype=bool)
    for _ in range(30):
        rows = np.flatnonzero(waiting.any(axis=1))
        if not len(rows):
            break
        turn = angle[rows][..., None]
        proposal = middle[rows] + offset[rows] * np.cos(turn) + partner[rows] * np.sin(turn)
        value = _log_likelihood(proposal, z, states, sign)
        taken = waiting[rows] & (value > bar[rows])
        result[rows] = np.where(taken[..., None], proposal, result[rows])
        level[rows] = np.where(taken, value, level[rows])
        waiting[rows] &= ~taken
        low = np.where(waiting & (angle < 0), angle, low)
        high = np.where(waiting & (angle >= 0), angle, high)
        angle = np.where(waiting, low + chance.random(angle.shape) * (high - low), angle)
    return result, level


def _laplace(known: Evidence, z: FloatArray, states: FloatArray, truth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The posterior's mode [f, p] and its precision [f·p, f·p], by damped Gauss–Newton steps."""
    from scipy.special import expit

    findings, parameters = known.center.shape
    covariance = np.kron(np.ones((findings, findings)), np.diag(known.shared**2))
    covariance += np.kron(np.eye(findings), np.diag(known.own**2))
    prior = np.linalg.inv(covariance)
    seen = ~np.isnan(truth)
    target = np.where(seen, truth, 0.0)
    best = known.center.copy()
    precision = prior
    for _ in range(60):
        chance = expit(_logits(best[None], z, states)[0])
        slopes = _derivatives(best, z, states)
        gradient = np.einsum("rfp,rf->fp", slopes, np.where(seen, target - chance, 0.0)).ravel()
        gradient -= prior @ (best - known.center).ravel()
        weight = np.where(seen, chance * (1 - chance), 0.0)
        precision = prior.copy()
        blocks = np.einsum("rfp,rf,rfq->fpq", slopes, weight, slopes, optimize=True)
        for f in range(findings):
            at = slice(f * parameters, (f + 1) * parameters)
            precision[at, at] += blocks[f]
        step = np.linalg.solve(precision, gradient)
        largest = float(np.abs(step).max())
        best = best + (step * min(1.0, 0.7 / max(largest, 1e-12))).reshape(best.shape)
        if largest < 1e-5:
            break
    return best, precision


def _derivatives(best: FloatArray, z: FloatArray, states: FloatArray) -> FloatArray:
    """d logit / d parameter [r, f, p]."""
    by_slope, by_prevalence = intercept(best[:, 1], best[:, 0], 1, 0), intercept(best[:, 1], best[:, 0], 0, 1)
    first = np.broadcast_to(by_prevalence, z.shape)
    second = by_slope + np.exp(best[:, 1]) * z
    return np.concatenate([first[..., None], second[..., None], states], axis=2)


def intercept(
    log_slope: FloatArray, logit_prevalence: FloatArray, by_slope: int = 0, by_prevalence: int = 0
) -> FloatArray:
    """A such that the mean of expit(A + slope·z) over normal z is the prevalence (or a derivative of A)."""
    value: FloatArray = _intercepts().ev(
        np.clip(log_slope, *_LOG_SLOPE), np.clip(logit_prevalence, *_LOGIT_PREVALENCE), dx=by_slope, dy=by_prevalence
    )
    return value


@cache
def _intercepts() -> Any:
    from scipy.interpolate import RectBivariateSpline
    from scipy.special import expit, ndtri

    normal = ndtri((np.arange(200) + 0.5) / 200)
    log_slopes = np.linspace(*_LOG_SLOPE, 58)
    logits = np.linspace(*_LOGIT_PREVALENCE, 91)
    table = np.empty((len(log_slopes), len(logits)))
    for row, log_slope in enumerate(log_slopes):
        low, high = np.full(len(logits), -150.0), np.full(len(logits), 150.0)
        for _ in range(50):
            middle = (low + high) / 2
            above = expit(middle[:, None] + np.exp(log_slope) * normal).mean(axis=1) > expit(logits)
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        table[row] = (low + high) / 2
    return RectBivariateSpline(log_slopes, logits, table)
