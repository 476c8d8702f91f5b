"""What each piece of the local recipe gives, on phantoms of a hospital whose labels are noisy.

    python benchmarks/local_recipe.py [--seeds 3] [--local 400] [--noise 0.15] [--only NAME ...] [--out FILE]

A base is trained on the public population, then fine-tuned on a local one with every variant. The table gives the mean
AUROC over findings on local test images with true labels, its difference from plain cross-entropy fine-tuning, and the
95% interval of that difference over images (paired bootstrap within each seed).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.findings import FINDINGS
from radia.fit import fit
from radia.labels import with_doubt
from radia.metrics import auroc, midranks
from radia.model import ChestModel, Preprocessing, build
from radia.predict import predict
from radia.settings import FinetuneSettings
from radia.suspects import out_of_fold
from radia.synthetic.phantom import public_set, sample_radiograph, to_uint8
from radia.synthetic.population import populations

PLAIN = FinetuneSettings(backbone="densenet-slim", epochs=6, batch_size=16, learning_rate=1e-3)
VARIANTS: dict[str, dict[str, Any]] = {
    "no augmentation": {"augment": False},
    "layer decay 0.85": {"layer_decay": 0.85},
    "average 0.9": {"average": 0.9},
    "average 0.97": {"average": 0.97},
    "weight decay 0.05": {"weight_decay": 0.05},
    "views 5": {"views": 5},
    "probe 2 epochs": {"probe_epochs": 2},
    "margin 2 epochs": {"margin_epochs": 2},
    "softened by suspicion": {},
    "5 folds, rank mean": {},
    "5 folds, rank mean, no augmentation": {"augment": False},
}


class Images:
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        return self.pixels[[int(name) for name in ids]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--public", type=int, default=2000)
    parser.add_argument("--local", type=int, default=400)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--noise", type=float, default=0.15)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--population", default=next(name for name in populations() if name != "public"))
    parser.add_argument("--only", nargs="*", help="of the variants")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    variants = {name: how for name, how in VARIANTS.items() if not asked.only or name in asked.only}

    plain = PLAIN.model_copy(update={"threads": asked.threads})
    public = public_set(asked.public, asked.side, 0, workers=1)
    pretraining = plain.model_copy(update={"epochs": 5, "learning_rate": 4e-3, "augment": False})
    new = partial(build, "densenet-slim", preprocessing=Preprocessing(asked.side))
    base, seconds = trained(new(), public.images, public.labels.astype(np.float32), pretraining, 0)
    print(f"base: {seconds:.0f} s of processor time", flush=True)
    scores: dict[str, list[NDArray[np.float32]]] = {}
    truths = []
    for seed in range(asked.seeds):
        pixels, truth = drawn(asked.local + asked.test, asked.population, asked.side, seed + 1)
        train, test = slice(asked.local), slice(asked.local, None)
        rng = np.random.default_rng([9, seed])
        given = np.where(rng.random(truth.shape) < asked.noise, 1 - truth, truth).astype(np.float32)
        truths.append(truth[test])
        scores.setdefault("base", []).append(predict(base, pixels[test]).probabilities)
        tuned, seconds = trained(deepcopy(base), pixels[train], given[train], plain, seed)
        scores.setdefault("plain", []).append(predict(tuned, pixels[test]).probabilities)
        print(f"plain: {seconds:.0f} s of processor time", flush=True)
        scratch, _ = trained(new(seed=seed), pixels[train], given[train], plain, seed)
        scores.setdefault("scratch", []).append(predict(scratch, pixels[test]).probabilities)
        for name, how in variants.items():
            labels = given[train]
            if name == "softened by suspicion":
                features = predict(base, pixels[train]).features
                folds = out_of_fold(features, labels.astype(np.float64), np.arange(asked.local), folds=5, seed=seed)
                labels, _ = with_doubt(labels, np.ones_like(labels), folds, soft=0.3)
            settings = plain.model_copy(update=how)
            members = [
                predict(trained(deepcopy(base), pixels[train], labels, settings, seed, fold)[0], pixels[test])
                for fold in range(5 if name.startswith("5 folds") else 1)
            ]
            ranks = [np.apply_along_axis(midranks, 0, one.probabilities.astype(np.float64)) for one in members]
            scores.setdefault(name, []).append(np.mean(ranks, axis=0).astype(np.float32))
            print(name, round(mean_auroc(truth[test], scores[name][-1]), 4), flush=True)
    table = [row(name, scores[name], scores["plain"], truths) for name in scores]
    text = json.dumps({"settings": {k: str(v) for k, v in vars(asked).items()}, "table": table}, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def trained(
    model: ChestModel,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.float32],
    settings: FinetuneSettings,
    seed: int,
    fold: int = 0,
) -> tuple[ChestModel, float]:
    n = len(pixels)
    validation = np.arange(n) % 6 == fold
    start = time.process_time()
    result = fit(
        model,
        images=Images(pixels),
        ids=[str(row) for row in range(n)],
        targets=labels,
        weights=np.ones_like(labels),
        train=~validation,
        validation=validation,
        settings=settings,
        seed=seed,
    )
    return result.model, time.process_time() - start


def drawn(n: int, population: str, side: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    rng, of = np.random.default_rng([8, seed]), populations()[population]
    images = [sample_radiograph(rng, of, side=side) for _ in range(n)]
    return np.stack([to_uint8(image.pixels) for image in images]), np.stack([image.truth for image in images])


def mean_auroc(truth: NDArray[np.float64], score: NDArray[np.float32]) -> float:
    values = [auroc(truth[:, k], score[:, k]) for k in range(len(FINDINGS))]
    return float(np.nanmean(values))


def row(
    name: str, scores: list[NDArray[np.float32]], plain: list[NDArray[np.float32]], truths: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """Mean over the seeds, and the interval of the difference when the images of each seed are drawn again."""
    rng = np.random.default_rng(0)
    values = [mean_auroc(t, s) for t, s in zip(truths, scores, strict=True)]
    differences = [v - mean_auroc(t, s) for v, t, s in zip(values, truths, plain, strict=True)]
    again = []
    for _ in range(300):
        of_seeds = []
        for truth, score, rival in zip(truths, scores, plain, strict=True):
            rows = rng.integers(0, len(truth), len(truth))
            of_seeds.append(mean_auroc(truth[rows], score[rows]) - mean_auroc(truth[rows], rival[rows]))
        again.append(np.mean(of_seeds))
    low, high = np.quantile(again, [0.025, 0.975])
    return {
        "variant": name,
        "auroc": round(float(np.mean(values)), 4),
        "by_seed": [round(value, 4) for value in values],
        "minus_plain": [round(float(x), 4) for x in (np.mean(differences), low, high)],
    }


if __name__ == "__main__":
    main()
