"""The candidate against the model in use on the held-out images of one snapshot: values in, one JSON-able dict out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from radia import metrics
from radia.evaluate.readers import compare_with_readers
from radia.findings import FINDINGS

if TYPE_CHECKING:
    import pandas as pd

    from radia.settings import EvaluateSettings

CURVE_POINTS = 120
GROUP_METRICS = ("auroc", "f1", "sensitivity", "specificity")


def evaluate_candidate(
    truth: metrics.Floats,
    base: metrics.Floats,
    candidate: metrics.Floats,
    *,
    patients: ArrayLike,
    groups: pd.DataFrame,
    settings: EvaluateSettings,
    seed: int,
    base_thresholds: ArrayLike | Mapping[str, float] | None = None,
    candidate_thresholds: ArrayLike | Mapping[str, float] | None = None,
    findings: Sequence[str] = FINDINGS,
    estimates: Mapping[str, Any] | None = None,
    readers: Mapping[str, metrics.Floats] | None = None,
    others: Mapping[str, tuple[metrics.Floats, ArrayLike | Mapping[str, float] | None]] | None = None,
) -> dict[str, Any]:
    """Both models' metrics with intervals, their paired differences, subgroups and curves; JSON-able.

    truth [n, f] of 1, 0, NaN (unknown: left out); base and candidate: probabilities [n, f]; patients [n]; thresholds
    chosen on validation (0.5 where none is given); groups: one row an image, one column an attribute (site, sex,
    age_band, view, manufacturer), blanks allowed;
    estimates: what radia/estimate.py says about the same models under label noise, kept as it is; readers: decisions
    [n, f] of people on the same images, NaN where one did not read; others: probabilities and thresholds of further
    models (the previous one, for example) by their names.

    Keys: n, patients, findings (names), models {"base" | "candidate": the JSON of `radia evaluate`, with "thresholds"},
    differences (candidate minus base), groups (a list), curves {model: {finding: roc, pr, calibration}}, estimates,
    others {name: as in models}, and readers (radia/evaluate/readers.py; the model is the candidate) where there are
    some.
    """
    labels = np.asarray(truth, np.float64)

    def judged(probs: metrics.Floats, thresholds: ArrayLike | Mapping[str, float] | None) -> metrics.Assessment:
        return metrics.assess(
            labels,
            probs,
            findings=findings,
            thresholds=thresholds,
            groups=patients,
            replicates=settings.replicates,
            seed=seed,
            min_positives=settings.min_positives,
        )

    limits = {"base": base_thresholds, "candidate": candidate_thresholds}
    assessed = {"base": judged(base, base_thresholds), "candidate": judged(candidate, candidate_thresholds)}
    result: dict[str, Any] = {
        "n": len(labels),
        "patients": assessed["base"].groups,
        "findings": list(findings),
        "models": {
            name: {**metrics.table_of(model), "thresholds": _by_finding(limits[name], findings)}
            for name, model in assessed.items()
        },
        "differences": metrics.differences(assessed["base"], assessed["candidate"]),
        "groups": subgroups(assessed["base"], assessed["candidate"], groups, settings),
        "curves": {
            name: {finding: curves(model.columns[k]) for k, finding in enumerate(findings)}
            for name, model in assessed.items()
        },
        "estimates": dict(estimates or {}),
        "others": {
            name: {**metrics.table_of(judged(probs, thresholds)), "thresholds": _by_finding(thresholds, findings)}
            for name, (probs, thresholds) in (others or {}).items()
        },
    }
    if readers:
        result["readers"] = compare_with_readers(
            labels,
            candidate,
            metrics.decisions_of(candidate, findings, candidate_thresholds),
            readers,
            findings=findings,
            groups=patients,
            replicates=settings.replicates,
            seed=seed,
            min_positives=settings.min_positives,
        )
    return result


def sentence(evaluation: Mapping[str, Any], *, base: str = "model in use", candidate: str = "candidate") -> str:
    """What the evaluation says, in a sentence or two."""
    gain = evaluation["differences"]["means"]["all"]["auroc"]
    was, now = (evaluation["models"][model]["means"]["all"]["auroc"] for model in ("base", "candidate"))
    where = f"on {evaluation['n']:,} held-out images of {evaluation['patients']:,} patients"
    if gain["value"] is None:
        return f"Too few images of either kind {where} to compare the {candidate} with the {base}."
    if gain["low"] is None or gain["low"] <= 0 <= gain["high"]:
        verdict = f"cannot be told from the {base}"
    else:
        verdict = f"is {'better' if gain['value'] > 0 else 'worse'} than the {base}"
    return (
        f"The {candidate} {verdict} {where}: mean AUROC {now['value']:.3f} against {was['value']:.3f}, "
        f"a difference of {metrics.shown(gain, signed=True)}. {_sure_findings(evaluation)}"
    )


def _sure_findings(evaluation: Mapping[str, Any]) -> str:
    entries = {name: entry["auroc"] for name, entry in evaluation["differences"]["findings"].items()}
    sure = {
        name: entry["value"] for name, entry in entries.items() if entry["p"] is not None and entry["p_holm"] < 0.05
    }
    if not sure:
        return "No single finding surely differs, after Holm's correction."
    better = ", ".join(name for name, gain in sure.items() if gain > 0)
    worse = ", ".join(name for name, gain in sure.items() if gain <= 0)
    parts = [f"better: {better}" if better else "", f"worse: {worse}" if worse else ""]
    return f"Surely different after Holm's correction: {'; '.join(part for part in parts if part)}."


def headline(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record keeps: n, patients, both models' mean AUROC and F1, their differences, a sentence."""
    out: dict[str, Any] = {"n": evaluation["n"], "patients": evaluation["patients"], "sentence": sentence(evaluation)}
    for metric in ("auroc", "f1"):
        out[f"mean_{metric}"] = {
            **{model: evaluation["models"][model]["means"]["all"][metric] for model in ("base", "candidate")},
            "difference": evaluation["differences"]["means"]["all"][metric],
        }
    return out


def comparison_rows(evaluation: Mapping[str, Any], metric: str = "auroc") -> list[dict[str, Any]]:
    """A row a finding, and one for the mean of all: finding, positives, base, candidate, difference, low, high, p."""
    rows = []
    for finding in evaluation["findings"]:
        entries = {model: evaluation["models"][model]["findings"][finding] for model in ("base", "candidate")}
        gap = evaluation["differences"]["findings"][finding][metric]
        rows.append({"finding": finding, "positives": entries["base"]["positives"], **_row(entries, gap, metric)})
    means = {model: evaluation["models"][model]["means"]["all"] for model in ("base", "candidate")}
    gap = evaluation["differences"]["means"]["all"][metric]
    return [*rows, {"finding": "mean", "positives": None, **_row(means, gap, metric)}]


def _row(entries: Mapping[str, Any], gap: Mapping[str, Any], metric: str) -> dict[str, Any]:
    return {
        "base": entries["base"][metric]["value"],
        "candidate": entries["candidate"][metric]["value"],
        "difference": gap["value"],
        "low": gap["low"],
        "high": gap["high"],
        "p": gap.get("p_holm", gap["p"]),
    }


def _by_finding(thresholds: ArrayLike | Mapping[str, float] | None, findings: Sequence[str]) -> dict[str, float]:
    if thresholds is None:
        return dict.fromkeys(findings, 0.5)
    if isinstance(thresholds, Mapping):
        return {finding: float(thresholds.get(finding, 0.5)) for finding in findings}
    return dict(zip(findings, map(float, np.asarray(thresholds, np.float64)), strict=True))


def worst_cells(truth: metrics.Floats, probs: ArrayLike, count: int) -> list[tuple[int, int]]:
    """Rows and findings of the most confident mistakes: missed and falsely called in turn, worst first.

    truth, probs [n, f]. An image stands once, and a finding a second time only when every other one stood once.
    """
    scores = np.asarray(probs, np.float64)
    kinds = []
    for wrong in (np.where(truth == 1, 1 - scores, -1.0), np.where(truth == 0, scores, -1.0)):
        order = np.argsort(-wrong, axis=None, kind="stable")
        cells = np.stack(np.unravel_index(order[wrong.flat[order] > 0.5], wrong.shape), axis=1)
        kinds.append([(int(row), int(finding)) for row, finding in cells])
    chosen: list[tuple[int, int]] = []
    for turn in range(count):
        seen = {row for row, _ in chosen}
        often = np.bincount([finding for _, finding in chosen], minlength=scores.shape[1])
        for kind in (kinds[turn % 2], kinds[1 - turn % 2]):
            left = [cell for cell in kind if cell[0] not in seen]
            if left:
                chosen.append(min(left, key=lambda cell: often[cell[1]]))  # min keeps the first: the worst
                break
    return chosen


# --- subgroups ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subgroup:
    """Rows that share a value of an attribute, or of two."""

    attribute: str
    value: str
    rows: metrics.Bools


def subgroups(
    base: metrics.Assessment, candidate: metrics.Assessment, groups: pd.DataFrame, settings: EvaluateSettings
) -> list[dict[str, Any]]:
    """One entry a subgroup of at least `settings.min_group` images.

    Each holds attribute, group, n, patients, means {metric: {"base", "candidate", "difference"}}, underdiagnosis (the
    false-positive rate of No Finding: sick, and called healthy; Seyyed-Kalantari et al. 2021) and, for single
    attributes, findings {F: {n, positives, metric: {...}}}. Intervals are analytic (clustered by patient).
    """
    found = list(_single(groups)) + (list(_pairs(groups)) if settings.intersections else [])
    return [
        _subgroup_json(base, candidate, group, settings.min_positives)
        for group in found
        if group.rows.sum() >= settings.min_group
    ]


def _single(groups: pd.DataFrame) -> Iterator[Subgroup]:
    for attribute in groups.columns:
        values = groups[attribute].astype("string").fillna("unknown").replace("", "unknown")
        for value in sorted(values.unique()):
            yield Subgroup(str(attribute), str(value), (values == value).to_numpy(dtype=bool))


def _pairs(groups: pd.DataFrame) -> Iterator[Subgroup]:
    single = [group for group in _single(groups) if not group.rows.all()]
    for first, second in combinations(single, 2):
        rows = first.rows & second.rows
        if first.attribute != second.attribute and rows.any():
            yield Subgroup(f"{first.attribute} × {second.attribute}", f"{first.value} · {second.value}", rows)


def _subgroup_json(
    base: metrics.Assessment, candidate: metrics.Assessment, group: Subgroup, min_positives: int
) -> dict[str, Any]:
    codes = np.unique(base.codes[group.rows], return_inverse=True)[1]
    patients = int(codes.max()) + 1
    comparisons = {
        finding: metrics.Comparison(base.columns[k].within(group.rows), candidate.columns[k].within(group.rows))
        for k, finding in enumerate(base.findings)
    }
    kept = [name for name, comparison in comparisons.items() if comparison.base.rarer >= min_positives]
    out: dict[str, Any] = {
        "attribute": group.attribute,
        "group": group.value,
        "n": int(group.rows.sum()),
        "patients": patients,
        "over": len(kept),
        "means": {
            metric: metrics.mean_comparison([comparisons[name] for name in kept], metric, codes, patients)
            for metric in GROUP_METRICS
        },
    }
    if "No Finding" in comparisons:
        out["underdiagnosis"] = comparisons["No Finding"].json("false_positive_rate", codes, patients)
    if "×" not in group.attribute:
        out["findings"] = {
            name: {
                "n": len(comparison.base.rows),
                "positives": comparison.base.positives,
                **{metric: comparison.json(metric, codes, patients) for metric in GROUP_METRICS},
            }
            for name, comparison in comparisons.items()
        }
    return out


# --- curves ---------------------------------------------------------------------------------------------------------


def curves(column: metrics.Column) -> dict[str, Any]:
    """ROC and precision-recall curves of at most `CURVE_POINTS` points, calibration by tenths, counts at the threshold.

    roc: [false-positive rate, sensitivity]; pr: [recall, precision]; calibration: [mean probability, part present, n];
    confusion: TP, FP, FN, TN; by_threshold: [threshold, sensitivity, specificity, PPV]. Empty where the finding has one
    class only.
    """
    out: dict[str, Any] = {
        "confusion": [int(number) for number in column.counts()],
        "calibration": _calibration(column),
    }
    if column.rarer == 0:
        return {**out, "roc": [], "pr": [], "by_threshold": []}
    order = np.argsort(-column.score, kind="stable")
    truth, score = column.truth[order], column.score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    hits = np.concatenate([[0], np.cumsum(truth)[last]])
    false = np.concatenate([[0], (last + 1)]) - hits
    sensitivity, false_rate = hits / hits[-1], false / false[-1]
    precision = np.concatenate([[1.0], hits[1:] / (hits[1:] + false[1:])])
    kept = _thinned(sensitivity + false_rate)
    decided = np.column_stack([score[last], sensitivity[1:], 1 - false_rate[1:], precision[1:]])
    return {
        **out,
        "by_threshold": np.round(decided[_thinned(1 - score[last])], 5).tolist(),
        "roc": np.round(np.column_stack([false_rate, sensitivity])[kept], 5).tolist(),
        "pr": np.round(np.column_stack([sensitivity, precision])[_thinned(sensitivity)], 5).tolist(),
    }


def _thinned(progress: metrics.Floats) -> metrics.Ints:
    """Indices of at most about CURVE_POINTS points, evenly along a rising quantity; first and last stay."""
    if len(progress) <= CURVE_POINTS:
        return np.arange(len(progress))
    wanted = np.linspace(progress[0], progress[-1], CURVE_POINTS)
    return np.unique(
        np.concatenate([np.searchsorted(progress, wanted), [0, len(progress) - 1]]).clip(0, len(progress) - 1)
    )


def _calibration(column: metrics.Column) -> list[list[float]]:
    bins = metrics.calibration_bin(column.score)
    return [
        [round(float(column.score[bins == b].mean()), 5), round(float(column.truth[bins == b].mean()), 5), int(size)]
        for b, size in enumerate(np.bincount(bins, minlength=metrics.ECE_BINS))
        if size
    ]
