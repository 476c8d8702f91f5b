"""Has what comes in moved away from what a model was made on, and is it time to train again? Values in, values out.

Two samples of images, as one model sees them, are compared: measures of the pictures, the model's features, and its
probabilities. A measure or a finding has shifted when its population stability index is large beyond what chance alone
gives samples of these sizes, and a permutation test says that chance does not explain it. Patients are permuted, not
images. The evaluation (snapshot against training data) and the monitoring of batches both come here; files, models and
figures do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.metrics import Floats
from radia.settings import MonitorSettings

Masks = NDArray[np.bool_]

PSI_BINS = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MEASURES = ("exposure", "contrast", "saturation", "structure", "noise")
"""Measures of the pictures that are watched, all in 0..1: of the manifest, and of radia/image_quality.py."""

EVERYWHERE = "all sites"


@dataclass(frozen=True)
class Sample:
    """Images as one model sees them, one row each.

    patients, sites: [n]; measures: one column each; features [n, channels]; probabilities: one column a finding.
    """

    patients: NDArray[np.str_]
    sites: NDArray[np.str_]
    measures: pd.DataFrame
    features: Floats
    probabilities: pd.DataFrame

    def __len__(self) -> int:
        return len(self.patients)

    def at(self, rows: Masks) -> Sample:
        """The images of some rows."""
        return Sample(
            self.patients[rows],
            self.sites[rows],
            self.measures[rows].reset_index(drop=True),
            self.features[rows],
            self.probabilities[rows].reset_index(drop=True),
        )


# --- one number each ------------------------------------------------------------------------------------------------


def psi(reference: Floats, current: Floats, bins: int = PSI_BINS) -> float:
    """Population stability index of two samples of one value, over the reference's quantiles.

    sum (c - r) ln(c / r) over bins, with half a case added to each; by custom 0.1 is a small shift and 0.25 a large one
    (Siddiqi, Credit Risk Scorecards, 2006). Without any shift its mean is about (bins - 1)(1 / n + 1 / m).
    """
    values = np.concatenate([reference, current]).astype(np.float64)
    mask = np.arange(len(values)) < len(reference)
    return float(_psi_of(values, mask[None], bins)[0])


def _psi_of(values: Floats, masks: Masks, bins: int = PSI_BINS) -> Floats:
    """The index for each way [r, n] to call some of the values [n] the reference; [r]."""
    order = np.argsort(values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    below = np.cumsum(masks[:, order], axis=1, dtype=np.int32)[:, last]  # of the reference, at or below each value
    size = below[:, -1:]
    edges = np.empty((len(masks), bins + 1), np.intp)
    edges[:, 0], edges[:, -1] = -1, len(last) - 1
    for k in range(1, bins):
        edges[:, k] = (below * bins < k * size).sum(axis=1)
    reference = np.diff(np.take_along_axis(below, edges[:, 1:], axis=1), axis=1, prepend=0)
    both = np.diff((last + 1)[edges[:, 1:]], axis=1, prepend=0)
    current, kept = both - reference, both > 0
    filled = kept.sum(axis=1, keepdims=True)  # ties may leave bins empty
    r = (reference + 0.5) / (size + 0.5 * filled)
    c = (current + 0.5) / (len(values) - size + 0.5 * filled)
    return np.asarray(np.where(kept, (c - r) * np.log(c / r), 0.0).sum(axis=1))


def kernel(features: Floats) -> Floats:
    """Gaussian kernel [n, n] of features [n, c], each channel on its own scale; as wide as the median distance."""
    spread = features.std(axis=0)
    scaled = np.asarray((features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0), np.float64)
    squares = (scaled**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0.0)
    middle = np.median(distances[np.triu_indices(len(distances), 1)]) if len(distances) > 1 else 1.0
    return np.asarray(np.exp(-distances / (middle if middle > 0 else 1.0)))


def mmd(similarity: Floats, masks: Masks) -> Floats:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012) for each way [r, n] to call rows reference, [r].

    About 0 where both samples come from one distribution, below it as often as above.
    """
    inside = masks.astype(np.float64)
    n, m = inside.sum(axis=1), (~masks).sum(axis=1)
    off = similarity - np.diag(np.diag(similarity))
    with_reference = inside @ off
    within_reference = (with_reference * inside).sum(axis=1)
    across = (with_reference * ~masks).sum(axis=1)
    within_current = off.sum() - within_reference - 2 * across
    return np.asarray(within_reference / (n * (n - 1)) + within_current / (m * (m - 1)) - 2 * across / (n * m))


def permuted(units: NDArray[np.intp], from_reference: Masks, replicates: int, seed: int) -> Masks:
    """Ways [r, n] to call rows reference: whole units change sides, as many as there were stay on each.

    units: the unit of each row, numbered from 0; a unit's rows are all from one side.
    """
    rng = np.random.default_rng(seed)
    side = np.zeros(units.max() + 1, bool)
    side[units] = from_reference
    shuffled = rng.permuted(np.broadcast_to(side, (replicates, len(side))), axis=1)
    return np.asarray(shuffled[:, units])


# --- two samples ----------------------------------------------------------------------------------------------------


def shift(reference: Sample, current: Sample, settings: MonitorSettings, *, seed: int = 0) -> dict[str, Any]:
    """How the current sample differs from the reference; JSON-able.

    Keys: n, reference_n, measures and predictions {name: psi, chance (its mean over permutations), p, p_adjusted,
    shifted, quantiles {"reference", "current"}}, embeddings {mmd, p, shifted}, shifted (names), and `why` instead of
    results where either has fewer than `settings.min_images` images. At most `settings.max_images` of each are drawn.
    """
    sizes = {"n": len(current), "reference_n": len(reference)}
    if min(sizes.values()) < settings.min_images:
        return {**sizes, "why": f"fewer than {settings.min_images} images on one side", "shifted": []}
    old, new = thinned(reference, settings.max_images, seed), thinned(current, settings.max_images, seed)
    from_reference = np.arange(len(old) + len(new)) < len(old)
    names = np.concatenate([np.char.add("r ", old.patients.astype(str)), np.char.add("c ", new.patients.astype(str))])
    masks = permuted(pd.factorize(names)[0].astype(np.intp), from_reference, settings.permutations, seed)
    masks = np.concatenate([from_reference[None], masks])
    parts = {
        "measures": _columns_shift(old.measures, new.measures, masks, settings),
        "predictions": _columns_shift(old.probabilities, new.probabilities, masks, settings),
    }
    embeddings = _features_shift(np.concatenate([old.features, new.features]), masks, settings)
    shifted = [name for part in parts.values() for name, entry in part.items() if entry["shifted"]]
    return {
        **sizes,
        **parts,
        "embeddings": embeddings,
        "shifted": [*shifted, *(["embeddings"] if embeddings["shifted"] else [])],
    }


def shift_by_site(reference: Sample, current: Sample, settings: MonitorSettings, *, seed: int = 0) -> dict[str, Any]:
    """`shift` over all images and for each site of the current sample against the same site of the reference.

    A site that the reference does not know is compared with all of it, and marked `new_site`.
    """
    out = {EVERYWHERE: shift(reference, current, settings, seed=seed)}
    sites = sorted(set(current.sites.tolist()))
    for site in sites:
        known = reference.sites == site
        entry = shift(reference.at(known) if known.any() else reference, current.at(current.sites == site), settings)
        out[site] = entry if known.any() else {**entry, "new_site": True}
    return out


def shifted_in(by_site: Mapping[str, Any]) -> list[str]:
    """'site: name' for everything that shifted anywhere."""
    return [f"{site}: {name}" for site, entry in by_site.items() for name in entry["shifted"]]


def thinned(sample: Sample, most: int, seed: int) -> Sample:
    """At most so many images of a sample, drawn without replacement."""
    if len(sample) <= most:
        return sample
    kept = np.zeros(len(sample), bool)
    kept[np.random.default_rng(seed).choice(len(sample), most, replace=False)] = True
    return sample.at(kept)


def _columns_shift(old: pd.DataFrame, new: pd.DataFrame, masks: Masks, settings: MonitorSettings) -> dict[str, Any]:
    """Each column's index and test; p_adjusted holds for all columns together (maxT, Westfall and Young 1993)."""
    indices = np.array([_psi_of(np.concatenate([old[name], new[name]]).astype(np.float64), masks) for name in old])
    chance, spread = indices[:, 1:].mean(axis=1), indices[:, 1:].std(axis=1)
    largest = ((indices - chance[:, None]) / np.where(spread > 0, spread, 1.0)[:, None]).max(axis=0)
    out: dict[str, Any] = {}
    for k, name in enumerate(old.columns):
        beyond = indices[k, 0] - chance[k]
        standing = beyond / (spread[k] if spread[k] > 0 else 1.0)
        adjusted = (1 + int((largest[1:] >= standing).sum())) / len(largest)
        out[str(name)] = {
            "psi": float(indices[k, 0]),
            "chance": float(chance[k]),
            "p": _p_value(indices[k]),
            "p_adjusted": adjusted,
            "shifted": bool(adjusted < settings.level and beyond >= settings.min_psi),
            "quantiles": {
                side: [float(q) for q in np.quantile(sample[name], QUANTILES)]
                for side, sample in (("reference", old), ("current", new))
            },
        }
    return out


def _features_shift(features: Floats, masks: Masks, settings: MonitorSettings) -> dict[str, Any]:
    values = mmd(kernel(features.astype(np.float64)), masks)
    p = _p_value(values)
    return {"mmd": float(values[0]), "p": p, "shifted": bool(p < settings.level and values[0] >= settings.min_mmd)}


def _p_value(values: Floats) -> float:
    """The part of the permutations, the one seen among them, with a value as large as the one seen, the first."""
    return float((values >= values[0] * (1 - 1e-12)).mean())


# --- is it time? ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trigger:
    """One reason to train again: what was seen, what it is asked to reach, and whether it did."""

    name: str
    observed: str
    bound: str
    met: bool


@dataclass(frozen=True)
class Proposal:
    """Whether to train again. Any trigger that is met is enough; a person or a schedule decides."""

    retrain: bool
    triggers: tuple[Trigger, ...]

    def as_json(self) -> dict[str, Any]:
        """{"retrain": ..., "triggers": [{"name", "observed", "bound", "met"}]}."""
        return {"retrain": self.retrain, "triggers": [asdict(trigger) for trigger in self.triggers]}


def propose(
    *, new_reads: int, new_images: int, age_days: float, shifted: Sequence[str], settings: MonitorSettings
) -> Proposal:
    """The rule that proposes retraining.

    new_reads, new_images: that the snapshot of the model in use does not hold; age_days: since it was put in use;
    shifted: what moved in the batches since, as `shifted_in` names it.
    """
    what = ", ".join(shifted[:6]) + (f" and {len(shifted) - 6} more" if len(shifted) > 6 else "")
    triggers = (
        Trigger(
            "new reads",
            str(new_reads),
            f"at least {settings.retrain_reads}",
            new_reads >= settings.retrain_reads,
        ),
        Trigger(
            "new images",
            str(new_images),
            f"at least {settings.retrain_images}",
            new_images >= settings.retrain_images,
        ),
        Trigger("shift", what or "none", "none", bool(shifted)),
        Trigger(
            "age of the model",
            f"{age_days:.0f} days",
            f"at most {settings.retrain_days} days",
            age_days > settings.retrain_days,
        ),
    )
    return Proposal(any(trigger.met for trigger in triggers), triggers)
