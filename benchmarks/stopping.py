"""Which epoch to keep: chosen by given labels, or by blind reads of some validation studies.

    python benchmarks/stopping.py [--hospitals 21 22 23] [--reads 50] [--noise 0.15] [--out FILE]

A base is fine-tuned on phantoms of the embedded hospital for many epochs. Every epoch is judged on the validation
images by the given labels, and by simulated reads (two readers who err, an adjudicator) of some of them, drawn with
known probabilities as `radia reads queue` draws them. The table gives the true AUROC, on other patients, of the epoch
that each would have kept, and of the best epoch there was. `--noise report`: labels as its reports give them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from local_recipe import PLAIN, Size, mean_auroc, pretrained
from numpy.typing import NDArray

from radia.experiment import hospital_images
from radia.findings import FINDINGS
from radia.fit import fit
from radia.fit.reads import judge_by_reads, reads_and_labels
from radia.metrics import auroc, auroc_influence
from radia.model import ChestModel
from radia.predict import predict
from radia.reads import design, systematic_sample
from radia.synthetic.phantom import InMemory
from radia.synthetic.readers import ADJUDICATOR, READERS

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hospitals", type=int, nargs="*", default=[21, 22, 23])
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--validation", type=int, default=150)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--reads", type=int, default=50)
    parser.add_argument("--noise", default="0.15")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    base = pretrained(Size(1500, 0, 0, asked.side, 0, 1))
    rows = [one_hospital(base, hospital, asked) for hospital in asked.hospitals]
    means = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0] if name != "by_epoch"}
    result = {"asked": {k: str(v) for k, v in vars(asked).items()}, "means": means, "hospitals": rows}
    print(json.dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")


def one_hospital(base: ChestModel, hospital: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The true AUROC of the epoch that each judge would have kept."""
    learn = asked.train + asked.validation
    drawn = hospital_images(learn + asked.test, side=asked.side, seed=5000 + hospital, workers=1)
    given = noisy(drawn.given[:learn], drawn.truth[:learn], asked.noise, hospital)
    validation = np.arange(learn) >= asked.train
    ids = np.arange(learn).astype(str)
    model, tests, judged = deepcopy(base), [], []

    def look(entry: Mapping[str, Any], probabilities: NDArray[np.float32]) -> None:
        judged.append((entry, probabilities.astype(np.float64)))
        tests.append(mean_auroc(drawn.truth[learn:], predict(model, drawn.images[learn:]).probabilities))

    known = np.nan_to_num(given, nan=0.0)
    fit(
        model,
        images=InMemory(drawn.images),
        ids=ids,
        targets=(known == 1).astype(np.float32),
        weights=(known != -1).astype(np.float32),
        train=~validation,
        validation=validation,
        settings=PLAIN.model_copy(update={"threads": 1, "epochs": EPOCHS, "learning_rate": asked.rate}),
        seed=hospital,
        on_epoch=look,
    )
    reads = read(drawn.truth[:learn][validation], known[validation], judged[0][1], ids[validation], asked.reads)
    table = pd.DataFrame(given[validation], index=ids[validation], columns=list(FINDINGS))
    rests_on = reads_and_labels(table, reads)
    if rests_on is None:
        raise SystemExit(f"{asked.reads} reads are too few to judge by")
    judge = judge_by_reads(rests_on, ids[validation], FINDINGS)
    truth = drawn.truth[:learn][validation]
    by_labels = [entry["validation_auroc"] for entry, _ in judged]
    by_finding = [np.array([entry["auroc"][f] or np.nan for f in FINDINGS], float) for entry, _ in judged]
    told = [judge.aurocs(probabilities) for _, probabilities in judged]
    mixed = [np.where(np.isnan(new), old, new) for new, old in zip(told, by_finding, strict=True)]
    by_truth = [np.nanmean([auroc(truth[:, k], p[:, k]) for k in range(14)]) for _, p in judged]
    tests_of = np.array(tests)
    return {
        "best epoch": float(tests_of.max()),
        "last epoch": float(tests_of[-1]),
        "given labels": float(tests_of[int(np.argmax(by_labels))]),
        "given labels, latest within 1 SE": float(tests_of[latest(judged, known[validation], by_labels, 1)]),
        "given labels, latest within 2 SE": float(tests_of[latest(judged, known[validation], by_labels, 2)]),
        "reads where they speak": float(tests_of[int(np.argmax([np.nanmean(v) for v in told]))]),
        "reads, else given labels": float(tests_of[int(np.argmax([np.nanmean(v) for v in mixed]))]),
        "half reads, half given labels": float(
            tests_of[int(np.argmax([np.nanmean(v) + g for v, g in zip(mixed, by_labels, strict=True)]))]
        ),
        "true labels of validation": float(tests_of[int(np.argmax(by_truth))]),
        "by_epoch": {
            "test": np.round(tests, 4).tolist(),
            "given labels": np.round(by_labels, 4).tolist(),
            "reads": [round(float(np.nanmean(v)), 4) for v in mixed],
            "truth": np.round(by_truth, 4).tolist(),
        },
    }


def latest(
    judged: Sequence[tuple[Mapping[str, Any], NDArray[np.float64]]],
    given: NDArray[np.float64],
    values: Sequence[float],
    errors: float,
) -> int:
    """The latest epoch that is no more than so many standard errors below the best (Breiman et al. 1984)."""
    best = int(np.argmax(values))
    moves = [influence(given, probabilities) for _, probabilities in judged]
    within = [
        epoch
        for epoch in range(len(values))
        if values[best] - values[epoch] <= errors * float(np.sqrt(np.square(moves[best] - moves[epoch]).sum()))
    ]
    return max(within)


def influence(given: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each image moves the mean AUROC over findings, [n]."""
    parts = []
    for k in range(given.shape[1]):
        sure = given[:, k] != -1
        truth = given[sure, k] == 1
        if truth.any() and not truth.all():
            moved = np.zeros(len(given))
            moved[sure] = auroc_influence(truth, scores[sure, k : k + 1])[1][0]
            parts.append(moved)
    return np.asarray(np.mean(parts, axis=0))


def noisy(given: NDArray[np.float64], truth: NDArray[np.float64], noise: str, seed: int) -> NDArray[np.float64]:
    if noise == "report":
        return given
    return np.where(np.random.default_rng([9, seed]).random(truth.shape) < float(noise), 1 - truth, truth)


def read(
    truth: NDArray[np.float64], given: NDArray[np.float64], scores: NDArray[np.float64], ids: NDArray[Any], budget: int
) -> pd.DataFrame:
    """Some studies, drawn as for estimates, with what two readers, and where they differ an adjudicator, say."""
    columns = list(FINDINGS)
    labels, chances = (pd.DataFrame(values, index=ids, columns=columns) for values in (given, scores))
    wanted = design(labels, chances, budget=budget)
    rows = systematic_sample(np.asarray(wanted, np.float64), np.random.default_rng(0))
    true = pd.DataFrame(truth, index=ids, columns=columns).iloc[rows]
    first, second = (reader.read(true, seed=0) for reader in READERS)
    said = first.where(first == second, ADJUDICATOR.read(true, seed=0))
    chosen = wanted.iloc[rows].to_numpy(np.float64)
    return said.rename_axis("id").reset_index().assign(sampling_probability=chosen, queue="evaluation")


if __name__ == "__main__":
    main()
