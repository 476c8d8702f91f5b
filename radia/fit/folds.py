"""An ensemble: networks trained on the train side without one fold of its patients each, their ranks averaged.

Every network's epoch is chosen on the validation side, as a single one's is; the reference images that ranks are told
by, the temperature and the thresholds are the validation side's too. A killed ensemble goes on with the network that it
was at: those that were done are kept in the resume folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radia.errors import TrainingError
from radia.fit import state as states
from radia.fit.batches import Pixels
from radia.fit.loop import FitResult, OnEpoch, Progress, fit
from radia.fit.setup import Floats, finding_weights, threads, trainable, validation_truth
from radia.fit.validation import CHUNK, Judge, Validation
from radia.model import ChestModel, describe, load_checkpoint, member, save_checkpoint, to_input, together
from radia.predict import as_tensor, evaluating
from radia.suspects import patient_folds
from radia.workspace import written_whole

if TYPE_CHECKING:
    from radia.settings import FinetuneSettings

log = logging.getLogger(__name__)

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class _Kept:
    """What is kept of a network that is done, beside its checkpoint."""

    history: list[dict[str, Any]]
    best_epoch: int
    untrained: tuple[str, ...]
    unvalidated: tuple[str, ...]
    training: dict[str, Any]


def fit_folds(
    model: ChestModel,
    *,
    patients: Sequence[str] | NDArray[Any],
    sites: Sequence[str] | NDArray[Any],
    images: Pixels,
    ids: Sequence[str] | NDArray[Any],
    targets: Floats,
    weights: Floats,
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
    settings: FinetuneSettings,
    seed: int,
    sampling: NDArray[np.float64] | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
    on_epoch: OnEpoch | None = None,
    by: Callable[..., FitResult] = fit,
) -> FitResult:
    """As fit, with `settings.folds` networks: one model whose ranks are the mean of theirs. by: what trains each.

    patients, sites: [n]; a patient's images are in one fold, and every site is dealt evenly over the folds. The history
    holds every network's epochs, each with its `fold`, and the ensemble's own entry last. Where the model is an
    ensemble itself, its networks are gone on with in turn. Raises as fit, and LabelError for fewer patients than folds.
    """
    ids, count = np.asarray(ids), settings.folds
    fold = _folds(np.asarray(patients), np.asarray(sites), train, count, seed)
    single = settings.model_copy(update={"folds": 1, "calibrate": False})
    known: dict[str, Any] = {"images": images, "ids": ids, "targets": targets, "weights": weights}
    known |= {"validation": validation, "settings": single, "sampling": sampling, "judge": judge}
    made: list[ChestModel] = []
    outcomes: list[_Kept] = []
    for number in range(count):
        start, inside = member(model, number % model.members), train & (fold != number)
        told = (ids, targets, weights, inside, validation, sampling, judge, single, seed, number)
        kept = resume / f"fold-{states.fingerprint(start, *told)[:32]}" if resume else None
        if kept is None or not (kept / OUTCOME).is_file():
            log.info("network %d of %d: %d of %d images", number + 1, count, inside.sum(), train.sum())
            result = by(
                start,
                **known,
                train=inside,
                seed=_seed(seed, number),
                progress=_part(progress, number, count),
                resume=resume / f"training-{number}" if resume else None,
                on_epoch=_numbered(on_epoch, number),
            )
            made.append(result.model)
            outcomes.append(_outcome(result))
            if kept is not None:
                _keep(kept, result.model, outcomes[-1])
        else:
            made.append(load_checkpoint(kept, findings=model.findings)[0])
            outcomes.append(_Kept(**json.loads((kept / OUTCOME).read_text())))
    with threads(settings.threads):
        whole = together(made, _logits(made, images, ids[validation]))
        targets, weights, _ = trainable(whole, ids, targets, weights, train, validation)
        weights = weights * finding_weights(whole.findings, settings)
        truth = validation_truth(whole, targets[validation], weights[validation])
        validate = Validation(whole, images, ids[validation], truth, judge, fast=False)
        entry, probabilities = validate.entry(outcomes[0].training["settings"]["epochs"], None)
        thresholds, temperature = validate.frozen(calibrate=settings.calibrate)
        whole.temperature.fill_(temperature)
    if on_epoch:
        on_epoch({**entry, "fold": None}, probabilities)
    if resume:
        shutil.rmtree(resume, ignore_errors=True)
    history = [{**one, "fold": number} for number, kept in enumerate(outcomes) for one in kept.history]
    history.append({**entry, "fold": None})
    untrained = tuple(f for f in whole.findings if any(f in kept.untrained for kept in outcomes))
    training = {
        **outcomes[0].training,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "images": int(train.sum()),
        "folds": count,
        "best_epoch": [kept.best_epoch for kept in outcomes],
        "validation_auroc": entry["validation_auroc"],
        "untrained": list(untrained),
        "unvalidated": [finding for finding in whole.findings if entry["auroc"][finding] is None],
    }
    return FitResult(whole, thresholds, history, len(history) - 1, untrained, tuple(training["unvalidated"]), training)


def _folds(
    patients: NDArray[Any], sites: NDArray[Any], train: NDArray[np.bool_], count: int, seed: int
) -> NDArray[np.int64]:
    """The fold of each image of the train side, -1 elsewhere."""
    if count < 2:
        raise TrainingError(f"an ensemble of {count} folds: expected at least 2")
    fold = np.full(len(train), -1)
    of_site = (sites[train][:, None] == np.unique(sites[train])).astype(np.float64)
    fold[train] = patient_folds(of_site, patients[train], folds=count, seed=seed)
    return fold


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([4, seed, number]).integers(2**31))


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, count * total)


def _numbered(on_epoch: OnEpoch | None, number: int) -> OnEpoch | None:
    if on_epoch is None:
        return None
    return lambda entry, probabilities: on_epoch({**entry, "fold": number}, probabilities)


def _outcome(result: FitResult) -> _Kept:
    return _Kept(result.history, result.best_epoch, result.untrained, result.unvalidated, result.training)


def _keep(folder: Path, model: ChestModel, outcome: _Kept) -> None:
    """Keeps a network that is done: its checkpoint, and last its outcome, whose presence says that all is there."""
    save_checkpoint(folder, model, describe(model))
    with written_whole(folder / OUTCOME) as partial:
        partial.write_text(json.dumps(asdict(outcome)))


def _logits(models: Sequence[ChestModel], images: Pixels, ids: NDArray[Any]) -> Tensor:
    """What each network says of the images as they are, [models, n, findings]."""
    return torch.stack([torch.cat(list(_said(model, images, ids))) for model in models])


def _said(model: ChestModel, images: Pixels, ids: NDArray[Any]) -> Iterator[Tensor]:
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(ids), CHUNK):
            pixels = as_tensor(images.read(ids[start : start + CHUNK].tolist()), "cpu")
            yield model(to_input(pixels, model.preprocessing)).float()
