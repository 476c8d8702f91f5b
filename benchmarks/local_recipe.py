"""What each piece of the local recipe gives, on phantoms of the embedded hospital with 15% of the labels turned round.

    python benchmarks/local_recipe.py [--out FILE] [--markdown FILE] [--only NAME ...]

A base is trained on the public population, then fine-tuned on a hospital's two sites with every variant. Pieces are
chosen on some hospitals (`--choose`, seeds) and confirmed on others (`--confirm`), drawn anew: other patients, other
noise. The tables give the mean AUROC over findings on the true labels of other patients, its difference from plain
cross-entropy fine-tuning, and the 95% interval of that difference over images (paired bootstrap within each hospital).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from radia.experiment import HospitalImages, hospital_images
from radia.findings import FINDINGS
from radia.fit import balanced, fit, fit_folds
from radia.labels import with_doubt
from radia.metrics import auroc
from radia.model import ChestModel, Preprocessing, build
from radia.predict import predict
from radia.settings import FinetuneSettings, recipe_file
from radia.suspects import find_suspects, out_of_fold, present_by_study
from radia.synthetic.phantom import InMemory, public_set

PLAIN = FinetuneSettings(backbone="densenet-slim", epochs=6, batch_size=16, learning_rate=1e-3, augment=True)
OF_THE_SIZE = {"base", "backbone", "epochs", "batch_size", "learning_rate"}
"""What of a recipe belongs to the size of its data and network, not to the small ones here."""
_LOCAL = yaml.safe_load(recipe_file("local-default").read_text())
RECIPE = {name: value for name, value in _LOCAL["finetune"].items() if name not in OF_THE_SIZE}
BASE, PLAIN_NAME, SCRATCH, LOCAL = "base", "plain cross-entropy", "from scratch", "the local recipe"


@dataclass(frozen=True)
class Piece:
    """Settings that differ from plain, and what is done with doubtful labels."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    weigh: bool = False
    soft: float = 0.0


PIECES: dict[str, Piece] = {
    LOCAL: Piece(RECIPE, weigh=_LOCAL["suspects"]["weights"], soft=_LOCAL["labels"].get("soft", 0.0)),
    "latest epoch within one standard error": Piece({"tolerance": 1.0}),
    "5 folds, rank mean": Piece({"folds": 5}),
    "5 views": Piece({"views": 5}),
    "no augmentation": Piece({"augment": False}),
    "5 views, no augmentation": Piece({"views": 5, "augment": False}),
    "labels weighed by suspicion": Piece(weigh=True),
    "targets softened by suspicion (0.5)": Piece(soft=0.5),
    "sites and patients balanced": Piece({"balanced": True}),
    "early stopping (patience 3)": Piece({"patience": 3, "epochs": 12}),
    "layer-wise decay 0.85": Piece({"layer_decay": 0.85}),
    "moving average 0.9": Piece({"average": 0.9}),
    "weight decay 0.05": Piece({"weight_decay": 0.05}),
    "head alone for 2 epochs": Piece({"probe_epochs": 2}),
    "AUC margin in the last 2 epochs": Piece({"margin_epochs": 2}),
}


@dataclass(frozen=True)
class Size:
    """Images to pretrain on, to fine-tune on (a sixth of them for validation), to judge on; their side; the noise."""

    public: int
    local: int
    test: int
    side: int
    noise: float
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", type=int, nargs="*", default=[1, 2, 3], help="hospitals, by seed")
    parser.add_argument("--confirm", type=int, nargs="*", default=[11, 12, 13], help="other hospitals")
    parser.add_argument("--public", type=int, default=1500)
    parser.add_argument("--local", type=int, default=400)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--noise", type=float, default=0.15)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="of the pieces")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--markdown", type=Path)
    asked = parser.parse_args()
    size = Size(asked.public, asked.local, asked.test, asked.side, asked.noise, asked.threads)
    pieces = {name: piece for name, piece in PIECES.items() if not asked.only or name in asked.only}
    started = time.process_time()
    base = pretrained(size)
    print(f"base: {time.process_time() - started:.0f} s of processor time", flush=True)
    result = {
        "size": vars(size),
        "recipe": RECIPE,
        "hospitals": {"chosen on": asked.choose, "confirmed on": asked.confirm},
        "chosen on": table(base, size, asked.choose, pieces),
        "confirmed on": table(base, size, asked.confirm, pieces),
        "cpu_seconds": round(time.process_time() - started),
    }
    print(json.dumps(result, indent=1))
    print(markdown(result))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(markdown(result) + "\n")


def markdown(result: Mapping[str, Any]) -> str:
    """Both tables as one."""
    first, second = ({row["variant"]: row for row in result[part]} for part in ("chosen on", "confirmed on"))
    lines = [
        "| variant | chosen on: AUROC | minus plain | confirmed on: AUROC | minus plain |",
        "|---|---|---|---|---|",
    ]
    for name in first:
        cells = [f"{r['auroc']:.3f} | {told(r['minus_plain'])}" for r in (first[name], second.get(name)) if r]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def told(difference: Sequence[float]) -> str:
    value, low, high = difference
    return "" if value == low == high == 0 else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def table(base: ChestModel, size: Size, hospitals: Sequence[int], pieces: Mapping[str, Piece]) -> list[dict[str, Any]]:
    """Every variant on every one of these hospitals."""
    scores: dict[str, list[NDArray[np.float32]]] = {}
    truths = []
    for hospital in hospitals:
        drawn = hospital_images(size.local + size.test, side=size.side, seed=5000 + hospital, workers=1)
        truths.append(drawn.truth[size.local :])
        for name, model in variants(base, drawn, size, hospital, pieces):
            scores.setdefault(name, []).append(predict(model, drawn.images[size.local :]).probabilities)
            print(hospital, name, round(mean_auroc(truths[-1], scores[name][-1]), 4), flush=True)
    return [row(name, scores[name], scores[PLAIN_NAME], truths) for name in scores]


def variants(
    base: ChestModel, drawn: HospitalImages, size: Size, hospital: int, pieces: Mapping[str, Piece]
) -> list[tuple[str, ChestModel]]:
    """Every model of one hospital, by name."""
    n = size.local
    chance = np.random.default_rng([9, hospital])
    given = np.where(chance.random(drawn.truth[:n].shape) < size.noise, 1 - drawn.truth[:n], drawn.truth[:n])
    plain = PLAIN.model_copy(update={"threads": size.threads})
    doubt = suspicion(base, drawn.images[:n], given, hospital)

    def tuned(start: ChestModel, piece: Piece) -> ChestModel:
        targets, weights = with_doubt(given, np.ones_like(given), doubt, soft=piece.soft, weigh=piece.weigh)
        settings = plain.model_copy(update=dict(piece.settings))
        return trained(start, drawn.images[:n], targets, weights, given, settings, hospital, drawn.sites[:n])

    new = build("densenet-slim", preprocessing=Preprocessing(size.side), seed=hospital)
    found: list[tuple[str, Callable[[], ChestModel]]] = [
        (BASE, lambda: base),
        (PLAIN_NAME, lambda: tuned(base, Piece())),
        (SCRATCH, lambda: tuned(new, Piece())),
        *((name, lambda piece=piece: tuned(base, piece)) for name, piece in pieces.items()),
    ]
    return [(name, make()) for name, make in found]


def suspicion(
    base: ChestModel, images: NDArray[np.uint8], given: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """P(truly present) of every training label, as `radia suspects` finds it, without any read."""
    ids = [str(number) for number in range(len(images))]
    labels = pd.DataFrame(given, index=ids, columns=list(FINDINGS))
    scores = out_of_fold(predict(base, images).features, given, np.arange(len(images)), seed=seed)
    found = find_suspects(labels, pd.DataFrame(scores, index=ids, columns=list(FINDINGS)), seed=seed)
    return present_by_study(found).loc[ids, list(FINDINGS)].to_numpy(np.float64)


def trained(
    start: ChestModel,
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    given: NDArray[np.float64],
    settings: FinetuneSettings,
    seed: int,
    sites: NDArray[np.str_],
) -> ChestModel:
    """A copy trained on five sixths of the images; what is done with doubtful labels is done in training alone."""
    rows = np.arange(len(images))
    validation = rows % 6 == 0
    targets, weights = targets.copy(), weights.copy()
    targets[validation], weights[validation] = given[validation], 1.0
    patients = rows.astype(str)
    known: dict[str, Any] = {"images": InMemory(images), "ids": patients, "targets": targets, "weights": weights}
    known |= {"train": ~validation, "validation": validation, "settings": settings, "seed": seed}
    known |= {"sampling": balanced(patients, sites, ~validation) if settings.balanced else None}
    if settings.folds > 1:
        return fit_folds(deepcopy(start), patients=patients, sites=sites, **known).model
    return fit(deepcopy(start), **known).model


def pretrained(size: Size) -> ChestModel:
    """The stand-in for a published model."""
    public = public_set(size.public, size.side, 0, workers=1)
    new = build("densenet-slim", preprocessing=Preprocessing(size.side))
    how = PLAIN.model_copy(update={"epochs": 5, "learning_rate": 4e-3, "augment": False, "threads": size.threads})
    labels = public.labels.astype(np.float32)
    sites = np.full(size.public, "public")
    return trained(new, public.images, labels, np.ones_like(labels), public.labels, how, 0, sites)


def mean_auroc(truth: NDArray[np.float64], score: NDArray[np.float32]) -> float:
    values = [auroc(truth[:, k], score[:, k]) for k in range(len(FINDINGS))]
    return float(np.nanmean(values))


def row(
    name: str, scores: list[NDArray[np.float32]], plain: list[NDArray[np.float32]], truths: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """Mean over the hospitals, and the interval of the difference when the images of each hospital are drawn again."""
    chance = np.random.default_rng(0)
    values = [mean_auroc(t, s) for t, s in zip(truths, scores, strict=True)]
    differences = [v - mean_auroc(t, s) for v, t, s in zip(values, truths, plain, strict=True)]
    again = []
    for _ in range(400):
        of_hospitals = []
        for truth, score, rival in zip(truths, scores, plain, strict=True):
            rows = chance.integers(0, len(truth), len(truth))
            of_hospitals.append(mean_auroc(truth[rows], score[rows]) - mean_auroc(truth[rows], rival[rows]))
        again.append(np.mean(of_hospitals))
    low, high = np.quantile(again, [0.025, 0.975])
    return {
        "variant": name,
        "auroc": round(float(np.mean(values)), 4),
        "by_hospital": [round(value, 4) for value in values],
        "minus_plain": [round(float(x), 4) for x in (np.mean(differences), low, high)],
        "differences_by_hospital": [round(float(x), 4) for x in differences],
    }


if __name__ == "__main__":
    main()
