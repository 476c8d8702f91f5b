"""What cleaning labels gives, measured where the truth is known: the embedded hospital, in memory.

A base trained on phantoms of the public set is fine-tuned on an invented hospital's images several times, with the
labels as given, with some of them re-read, with doubtful ones softened or weighed down, and with the true ones (the
oracle, which nobody has); each model is judged on the true labels of other patients. Several seeds, each with its own
hospital. Reads are made by simulated readers who err (radia/synthetic/readers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.findings import FINDINGS, training_targets
from radia.labels import with_doubt
from radia.metrics import auroc, shown, t_quantile
from radia.settings import FinetuneSettings, LabelSettings

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

ARMS = {
    "given labels": "labels as the hospital gave them",
    "reads at random": "as many studies re-read, chosen by chance",
    "suspects read": "the most suspect studies re-read",
    "weighed": "no read: a label weighs as much as it is likely to be right (suspects.weights)",
    "softened": "no read: half of the target is the probability of being present (labels.soft 0.5)",
    "suspects read, weighed": "both",
    "true labels": "the oracle",
}
BEFORE, ORACLE = "given labels", "true labels"
RARE = 5
"""Findings of which the test images have fewer present or absent are not averaged."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is: images to train on, to choose epochs and thresholds on, to judge on; their side."""

    public: int = 1000
    train: int = 600
    validation: int = 150
    test: int = 500
    side: int = 64
    base_epochs: int = 6
    epochs: int = 8


@dataclass(frozen=True)
class HospitalImages:
    """images: uint8 [n, side, side]; given: [n, 14] of 1, 0, -1, NaN; truth: [n, 14] of 1 and 0; sites: [n]."""

    images: NDArray[np.uint8]
    given: Floats
    truth: Floats
    sites: NDArray[np.str_]


def cleaning(
    *, size: Size, budget: int, seeds: int = 3, progress: Progress | None = None, threads: int = 1, workers: int = 0
) -> dict[str, Any]:
    """Mean AUROC on true labels of every arm, and what each gains over the given labels, with limits over seeds.

    budget: studies re-read by two simulated readers and, where they differ, an adjudicator. threads: of training;
    workers: processes that draw, 0: one a core. Keys: arms {name: {says,
    auroc, gain (value, low, high), wrong (part of the training labels that is wrong)}}, size, budget, seeds.
    """
    tell = progress or (lambda _step, _done, _total: None)
    base = _base(size, threads, workers, tell)
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for done, (arm, result) in enumerate(_arms(base, size, budget, seed, threads, workers).items()):
            found[arm].append(result)
            tell("cleaning", seed * len(ARMS) + done + 1, seeds * len(ARMS))
    values = {arm: np.array(results) for arm, results in found.items()}
    return {
        "size": vars(size),
        "budget": budget,
        "seeds": seeds,
        "arms": {
            arm: {
                "says": ARMS[arm],
                "auroc": float(results[:, 0].mean()),
                "gain": _over_seeds(results[:, 0] - values[BEFORE][:, 0]),
                "wrong": float(results[:, 1].mean()),
            }
            for arm, results in values.items()
        },
    }


def told(result: Mapping[str, Any]) -> str:
    """The result as a table in words."""
    lines = [
        f"{result['seeds']} hospitals of {result['size']['train']} training studies, {result['budget']} re-read; mean "
        f"AUROC on the true labels of {result['size']['test']} other images",
        f"{'':<24}{'AUROC':>7}  {'gain over the given labels':<30}{'wrong':>6}",
    ]
    for arm, entry in result["arms"].items():
        gain = entry["gain"]
        said = "" if arm == BEFORE else shown(gain, signed=True)
        lines.append(f"{arm:<24}{entry['auroc']:>7.4f}  {said:<30}{entry['wrong']:>6.1%}")
    return "\n".join(lines)


def hospital_images(count: int, *, side: int, seed: int, workers: int = 0) -> HospitalImages:
    """Studies of the embedded hospital's two sites with the labels that its reports would give, drawn small."""
    from radia.synthetic.phantom import in_parallel

    drawn = list(in_parallel(_hospital_image, [(seed, index, side) for index in range(count)], workers=workers))
    images, given, truth, sites = zip(*drawn, strict=True)
    return HospitalImages(np.stack(images), np.stack(given), np.stack(truth), np.array(sites))


# --- parts ----------------------------------------------------------------------------------------------------------


def _hospital_image(task: tuple[int, int, int]) -> tuple[NDArray[np.uint8], Floats, Floats, str]:
    from radia.synthetic.anatomy import sample_body, sample_pose
    from radia.synthetic.labelling import given_labels
    from radia.synthetic.phantom import radiograph, to_uint8
    from radia.synthetic.population import populations, sample_age, sample_signs

    seed, index, side = task
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7, index)))
    site = "HSH" if rng.random() < 0.55 else "CGC"
    population = populations()[site]
    body = sample_body(rng, sex="F" if rng.random() < 0.49 else "M", age=sample_age(rng, population))
    pose, signs = sample_pose(rng, bedside=population.bedside), sample_signs(rng, population)
    drawn = radiograph(body, pose, signs, population.look, side=side, seed=int(rng.integers(2**31)))
    given = given_labels(drawn.truth, {sign.finding: sign.severity for sign in signs}, rng)
    return to_uint8(drawn.pixels), given.values, drawn.truth, site


def _base(size: Size, threads: int, workers: int, tell: Progress) -> Any:
    """The stand-in for a published model: trained on the public set's phantoms."""
    from radia.base_weights import RANDOM, resolve
    from radia.synthetic.phantom import public_set

    public = public_set(
        size.public, size.side, 0, workers=workers, progress=lambda done, total: tell("phantoms", done, total)
    )
    model = resolve(RANDOM, backbone="densenet-slim", side=size.side, seed=0).model
    rows = np.arange(size.public)
    weights = np.ones_like(public.labels)
    return _trained(model, public.images, public.labels, weights, rows % 10 > 0, size.base_epochs, 4e-3, 0, threads)


def _trained(
    model: Any,
    images: NDArray[np.uint8],
    targets: Floats,
    weights: Floats,
    train: NDArray[np.bool_],
    epochs: int,
    rate: float,
    seed: int,
    threads: int,
) -> Any:
    """A copy of the model, trained on these rows and validated on the others."""
    from copy import deepcopy

    from radia.fit import fit
    from radia.synthetic.phantom import InMemory

    settings = FinetuneSettings(
        epochs=epochs, learning_rate=rate, device="cpu", precision="32-true", augment=False, threads=threads
    )
    return fit(
        deepcopy(model),
        images=InMemory(images),
        ids=[str(number) for number in range(len(images))],
        targets=targets.astype(np.float32),
        weights=weights.astype(np.float32),
        train=train,
        validation=~train,
        settings=settings,
        seed=seed,
    ).model


def _arms(base: Any, size: Size, budget: int, seed: int, threads: int, workers: int) -> dict[str, tuple[float, float]]:
    """Every arm on one hospital: mean AUROC on the test images' true labels, part of the training labels wrong."""
    from radia.predict import predict
    from radia.suspects import find_suspects, out_of_fold, study_order

    learn = hospital_images(size.train + size.validation, side=size.side, seed=1000 + seed, workers=workers)
    test = hospital_images(size.test, side=size.side, seed=2000 + seed, workers=workers)
    train = np.arange(len(learn.images)) < size.train
    ids = [str(number) for number in range(size.train)]
    given = pd.DataFrame(np.nan_to_num(learn.given[train], nan=0.0), index=ids, columns=list(FINDINGS))
    features = predict(base, learn.images[train]).features
    scores = out_of_fold(features, given.to_numpy(), np.arange(size.train), seed=seed)
    probabilities = pd.DataFrame(scores, index=ids, columns=list(FINDINGS))
    before = find_suspects(given, probabilities, seed=seed)
    chance = np.random.default_rng(seed)
    suspect = study_order(before)["id"].to_numpy()[:budget].astype(np.int64)
    read = _read(learn.truth[train], seed)
    after = find_suspects(given, probabilities, reads=_table(read, suspect), seed=seed)
    by_suspicion = _with_reads(learn.given, read, suspect)
    plans: dict[str, tuple[Floats, pd.DataFrame | None, float, bool]] = {
        "given labels": (learn.given, None, 0.0, False),
        "reads at random": (
            _with_reads(learn.given, read, chance.choice(size.train, budget, replace=False)), None, 0.0, False
        ),
        "suspects read": (by_suspicion, None, 0.0, False),
        "weighed": (learn.given, before, 0.0, True),
        "softened": (learn.given, before, 0.5, False),
        "suspects read, weighed": (by_suspicion, after, 0.0, True),
        "true labels": (np.where(train[:, None], learn.truth, learn.given), None, 0.0, False),
    }  # fmt: skip
    out = {}
    for arm, (labels, doubt, soft, weigh) in plans.items():
        targets, weights = _targets(labels, train, doubt, soft, weigh)
        model = _trained(base, learn.images, targets, weights, train, size.epochs, 1e-3, seed, threads)
        out[arm] = (_mean_auroc(test, predict(model, test.images).probabilities), _part_wrong(labels, learn, train))
    return out


def _read(truth: Floats, seed: int) -> Floats:
    """What two simulated readers and, where they differ, an adjudicator say of every study, [n, 14]."""
    from radia.synthetic.readers import ADJUDICATOR, READERS

    table = pd.DataFrame(truth, index=[str(number) for number in range(len(truth))], columns=list(FINDINGS))
    first, second = (reader.read(table, seed=seed).to_numpy() for reader in READERS)
    return np.asarray(np.where(first == second, first, ADJUDICATOR.read(table, seed=seed).to_numpy()))


def _with_reads(given: Floats, read: Floats, rows: NDArray[np.int64]) -> Floats:
    labels = given.copy()
    labels[rows] = read[rows]
    return labels


def _table(read: Floats, rows: NDArray[np.int64]) -> pd.DataFrame:
    return pd.DataFrame(read[rows], index=[str(row) for row in rows], columns=list(FINDINGS))


def _targets(
    labels: Floats, train: NDArray[np.bool_], doubt: pd.DataFrame | None, soft: float, weigh: bool
) -> tuple[Floats, Floats]:
    """Targets and weights [n, 14] as the pipeline makes them; doubt: suspects, where they count."""
    policy = LabelSettings()
    targets, weights = training_targets(labels, policy.uncertain_by_finding, default=policy.uncertain)
    if doubt is not None:
        from radia.suspects import present_by_study

        present = present_by_study(doubt).loc[[str(row) for row in np.flatnonzero(train)], list(FINDINGS)].to_numpy()
        targets[train], weights[train] = with_doubt(targets[train], weights[train], present, soft=soft, weigh=weigh)
    return targets.astype(np.float64), weights.astype(np.float64)


def _mean_auroc(test: HospitalImages, probabilities: NDArray[np.float32]) -> float:
    present = test.truth.sum(axis=0)
    kept = np.flatnonzero((present >= RARE) & (len(test.truth) - present >= RARE))
    return float(np.mean([auroc(test.truth[:, f], probabilities[:, f].astype(np.float64)) for f in kept]))


def _part_wrong(labels: Floats, learn: HospitalImages, train: NDArray[np.bool_]) -> float:
    """Of the training labels that are not uncertain; a blank one says absent."""
    said = labels[train]
    return float(((said == 1) != (learn.truth[train] == 1))[said != -1].mean())


def _over_seeds(gains: Floats) -> dict[str, float | None]:
    """The mean over seeds with Student's limits, none for one seed; the seeds are what varies."""
    if len(gains) < 2:
        return {"value": float(gains.mean()), "low": None, "high": None}
    half = t_quantile(len(gains) - 1) * float(gains.std(ddof=1)) / np.sqrt(len(gains))
    return {"value": float(gains.mean()), "low": float(gains.mean() - half), "high": float(gains.mean() + half)}
