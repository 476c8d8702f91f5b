"""The bootstrap by patient: every metric in every replicate, from one ordering of each finding's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radia.metrics.points import (
    ECE_BINS,
    METRICS,
    Bools,
    Floats,
    Ints,
    auprc,
    auroc,
    brier,
    calibration_bin,
    confusion,
    counted_metrics,
    ece,
    tie_starts,
)

CHUNK_CELLS = 4_000_000
"""Replicates are made in chunks of about so many weights: a chunk stays in the processor's cache, memory stays flat."""

RANK_LEVELS = 2000
POOL_REPLICATES = 250
"""Resamples (at least) that rank pooled findings: the slowest part, and only their standard errors need it."""

_SUMS = 5 + ECE_BINS


def resample(codes: Ints, count: int, replicates: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each row is drawn when whole groups are drawn with replacement: chunks [r, rows], in all `replicates`.

    The same seed gives the same weights: two models are compared on the same resamples.
    """
    rng = np.random.default_rng(seed)
    single = len(codes) == count and bool(np.array_equal(codes, np.arange(count)))
    step = max(1, CHUNK_CELLS // max(len(codes), 1))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        drawn = rng.integers(0, count, size=(size, count), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * np.int32(count)
        times = np.bincount(drawn.ravel(), minlength=size * count).astype(np.uint8).reshape(size, count)
        yield times if single else np.take(times, codes, axis=1)


@dataclass(frozen=True)
class Column:
    """One finding of one model, made ready: its rows with a known truth, ordered once for all replicates."""

    rows: Ints
    truth: Bools
    score: Floats
    decision: Bools

    @staticmethod
    def of(truth: Floats, score: Floats, decision: Bools) -> Column:
        """From full columns [n]; rows whose truth is NaN are left out."""
        rows = np.flatnonzero(~np.isnan(truth))
        return Column(rows, truth[rows] > 0, score[rows], decision[rows])

    @property
    def positives(self) -> int:
        """Rows whose truth is present."""
        return int(self.truth.sum())

    @property
    def rarer(self) -> int:
        """Rows of the rarer class: what limits every estimate."""
        return min(self.positives, len(self.truth) - self.positives)

    def within(self, rows: Bools) -> Column:
        """This column on some rows of the table, renumbered from 0; rows is [n] of booleans."""
        kept = rows[self.rows]
        place = np.cumsum(rows) - 1
        return Column(place[self.rows[kept]], self.truth[kept], self.score[kept], self.decision[kept])

    def gaps(self) -> Floats:
        """Each bin's part of the calibration error with its sign, [bins]."""
        gap = np.bincount(calibration_bin(self.score), weights=self.score - self.truth, minlength=ECE_BINS)
        return np.asarray(gap / max(len(self.rows), 1))

    def counts(self) -> Floats:
        """TP, FP, FN, TN."""
        return confusion(self.truth, self.decision)

    def point(self) -> dict[str, float]:
        """Every metric's value; NaN where it does not exist."""
        if not len(self.rows):
            return dict.fromkeys(METRICS, float("nan"))
        decided = {name: float(value) for name, value in counted_metrics(self.counts()).items()}
        return {
            "auroc": auroc(self.truth, self.score),
            "auprc": auprc(self.truth, self.score),
            **decided,
            "brier": brier(self.truth, self.score),
            "ece": ece(self.truth, self.score),
        }

    def sums(self) -> NDArray[np.float32]:
        """What must be summed over rows for every metric without ranks, [rows, 5 + bins]: TP ... TN, squares, gaps."""
        out = np.zeros((len(self.rows), _SUMS), np.float32)
        out[np.arange(len(self.rows)), _cell(self.truth, self.decision)] = 1
        gap = self.score - self.truth
        out[:, 4] = gap**2
        out[np.arange(len(self.rows)), 5 + calibration_bin(self.score)] = gap
        return out

    def ranked(self) -> Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]:
        """A function from weights [r, rows of the table] to AUROC [r] and AUPRC [r].

        Only where a positive lies does either curve need a value. Above `RANK_LEVELS` distinct positive scores,
        neighbours are taken as ties: that moves a replicate by far less than resampling does.
        """
        order = np.argsort(self.score, kind="stable")
        truth, score, rows = self.truth[order], self.score[order], self.rows[order]
        positive_rows, negative_rows = rows[truth], rows[~truth]
        starts = tie_starts(score[truth])
        distinct = score[truth][starts]
        low, high = (np.searchsorted(score[~truth], distinct, side) for side in ("left", "right"))
        if len(starts) > RANK_LEVELS:
            kept = np.linspace(0, len(starts) - 1, RANK_LEVELS).astype(np.intp)
            starts, low = starts[kept], low[kept]
            high = np.append(low[1:], len(negative_rows))
        edges = np.append(starts, len(positive_rows))
        borders = np.concatenate([[0], np.column_stack([low, high]).ravel(), [len(negative_rows)]])

        def areas(weights: NDArray[np.uint8]) -> tuple[Floats, Floats]:
            positives = _segment_sums(np.take(weights, positive_rows, axis=1), edges)
            between = np.cumsum(_segment_sums(np.take(weights, negative_rows, axis=1), borders), axis=1)
            under, upto = between[:, 0:-1:2], between[:, 1::2]
            negatives, total = between[:, -1], positives.sum(axis=1)
            hits = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]
            claimed = hits + negatives[:, None] - under
            with np.errstate(divide="ignore", invalid="ignore"):
                area = 0.5 * np.einsum("rk,rk->r", positives, under + upto) / (total * negatives)
                precision = np.divide(hits, claimed, out=np.zeros_like(hits), where=claimed > 0)
                return area, np.einsum("rk,rk->r", positives, precision) / total

        return areas


def _cell(truth: Bools, decision: Bools) -> Ints:
    """0 TP, 1 FP, 2 FN, 3 TN."""
    return np.where(decision, 0, 2) + np.where(truth, 0, 1)


@dataclass(frozen=True)
class Draws:
    """Bootstrap replicates: {metric: [replicates, k]}, NaN where it does not exist; gaps [replicates, k, bins].

    A gap is a bin's part of the calibration error with its sign: (predicted - observed) summed, over all rows.
    """

    metrics: dict[str, Floats]
    gaps: Floats


def bootstrap(
    columns: Sequence[Column], pools: Sequence[Sequence[int]], codes: Ints, count: int, *, replicates: int, seed: int
) -> Draws:
    """Every metric in every replicate, of each column and then of each pool.

    A pool is a set of columns whose cells are thrown together (the micro average).
    """
    pooled = [pool_columns([columns[k] for k in pool]) for pool in pools]
    gaps = np.full((replicates, len(columns) + len(pools), ECE_BINS), np.nan)
    ranked = [column.ranked() if column.rarer else None for column in (*columns, *pooled)]
    sums = np.zeros((len(codes), len(columns), _SUMS), np.float32)
    for k, column in enumerate(columns):
        sums[column.rows, k] = column.sums()
    summed = sums.reshape(len(codes), -1)
    out = {metric: np.full((replicates, len(ranked)), np.nan) for metric in METRICS}
    done = 0
    for weights in resample(codes, count, replicates, seed):
        part = slice(done, done + len(weights))
        done += len(weights)
        for k, areas in enumerate(ranked):
            if areas is not None and (k < len(columns) or part.start < POOL_REPLICATES):
                out["auroc"][part, k], out["auprc"][part, k] = areas(weights)
        totals = (weights.astype(np.float32) @ summed).astype(np.float64).reshape(len(weights), len(columns), _SUMS)
        totals = np.concatenate([totals, *(totals[:, list(pool)].sum(axis=1, keepdims=True) for pool in pools)], axis=1)
        for name, values in _summed_metrics(totals).items():
            out[name][part] = values
        with np.errstate(invalid="ignore"):
            gaps[part] = totals[..., 5:] / totals[..., :4].sum(axis=-1, keepdims=True)
    return Draws(out, gaps)


def pool_columns(columns: Sequence[Column]) -> Column:
    """All cells of several findings as one."""
    return Column(
        np.concatenate([column.rows for column in columns]),
        np.concatenate([column.truth for column in columns]),
        np.concatenate([column.score for column in columns]),
        np.concatenate([column.decision for column in columns]),
    )


def _summed_metrics(totals: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        size = totals[..., :4].sum(axis=-1)
        return {
            **counted_metrics(totals[..., :4]),
            "brier": totals[..., 4] / size,
            "ece": np.abs(totals[..., 5:]).sum(axis=-1) / size,
        }


def _segment_sums(weights: NDArray[np.uint8], borders: Ints) -> Floats:
    """Sums of each row over the columns from one border to the next, [r, borders - 1]; empty segments give 0."""
    filled = borders[1:] > borders[:-1]
    out = np.zeros((len(weights), len(borders) - 1))
    if filled.all() and len(borders) == weights.shape[1] + 1:
        out[:] = weights
    elif filled.any():
        inside = weights[:, : borders[-1]]
        out[:, filled] = np.add.reduceat(inside, borders[:-1][filled], axis=1, dtype=np.int32)
    return out
