"""The training loop. It reads straight down; everything that happens to a model between base and candidate is here.

Lightning Fabric gives precision and devices; the order of the images, their augmentation and the learning rate depend
only on (seed, epoch, step), so that the same run gives the same weights, and so does one that was killed and resumed.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from radia.fit import state as states
from radia.fit.batches import Feed, LossWatch, Pixels
from radia.fit.draws import Rows, draw_augmentation, epoch_batches, learning_rate_factor, torch_seed
from radia.fit.loss import auc_margin, below_parents, cross_entropy
from radia.fit.memory import images_at_once
from radia.fit.setup import (
    Floats,
    accelerator_of,
    finding_weights,
    only_head,
    optimizer_of,
    precision_of,
    set_learning_rate,
    threads,
    trainable,
    validation_truth,
)
from radia.fit.step import gradients
from radia.fit.validation import Judge, Validation
from radia.fit.workers import agreed, open_fabric, part_of, quiet_fabric, share_batch_norms
from radia.model import Augmentation, Checkpoint, ChestModel, to_input

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from radia.settings import FinetuneSettings

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
OnEpoch = Callable[[Mapping[str, Any], NDArray[np.float32]], None]

GRADIENT_NORM = 1.0
LOSS_CHECK_STEPS = 20
"""On a GPU the loss is looked at so often: reading it each step would make the device wait."""


@dataclass(frozen=True)
class FitResult:
    """A trained model and how it came about.

    model: with the weights of its best epoch, calibrated. thresholds: by finding, frozen on validation. history: one
    entry an epoch (`epoch`, `loss`, `validation_auroc`, and an AUROC by finding), epoch 0 being the base before any
    training. untrained: findings with no positive in training, whose loss was left out. unvalidated: findings that
    validation cannot judge. training: what model.json keeps of the run.
    """

    model: ChestModel
    thresholds: dict[str, float]
    history: list[dict[str, Any]]
    best_epoch: int
    untrained: tuple[str, ...]
    unvalidated: tuple[str, ...]
    training: dict[str, Any]

    def checkpoint(self, base: Checkpoint, *, snapshot: str | None) -> Checkpoint:
        """What is to be kept beside the weights: the base's provenance with this training's outcome."""
        return replace(base, thresholds=self.thresholds, snapshot=snapshot, training=self.training)


def fit(
    model: ChestModel,
    *,
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
    at_once: int | None = None,
) -> FitResult:
    """Trains the model on `ids[train]`, keeps the epoch that is best on `ids[validation]`, calibrates it there.

    targets, weights: [n, findings], targets in 0..1, a weight of 0 leaves a cell out. train, validation: [n] masks.
    sampling: [n], how often an image is drawn relative to the others (see balanced); without it, once an epoch.
    judge: what chooses the best epoch where reads tell more than the given labels. progress: called with (steps done,
    steps in all). resume: a folder for the full state after each epoch, from which the same run goes on after it was
    killed; emptied when it ends. on_epoch: called with each entry of the history and the validation probabilities.
    at_once: no more images of a batch go through together, whatever settings and estimate say.

    Raises TrainingError where training cannot start or the loss stops being finite, StorageFull where the state of an
    epoch cannot be kept.
    """
    ids = np.asarray(ids)
    targets, weights, untrained = trainable(model, ids, targets, weights, train, validation)
    weights = weights * finding_weights(model.findings, settings)
    truth = validation_truth(model, targets[validation], weights[validation])
    accelerator = accelerator_of(settings.device)
    precision = precision_of(settings.precision, accelerator)
    if settings.side is not None:
        model.preprocessing = replace(model.preprocessing, side=settings.side)
    model.tree, model.views = model.tree or settings.tree, settings.views
    if model.tree:
        targets, weights = below_parents(targets, weights, model.findings)
    training_rows = np.flatnonzero(train)
    chances = None if sampling is None else np.asarray(sampling, np.float64)[training_rows]
    batch_size = min(settings.batch_size, len(training_rows))
    steps = math.ceil(len(training_rows) / batch_size)
    total = settings.epochs * steps
    started = time.perf_counter()
    if resume:
        states.room_for_state(resume, model)

    with threads(settings.threads), quiet_fabric(), torch.random.fork_rng():
        known = (ids, targets, weights, train, validation, sampling, judge, settings, seed, accelerator, precision)
        run = states.fingerprint(model, *known)
        fabric = open_fabric(accelerator, precision, rests=settings.probe_epochs > 0)
        model.to(fabric.device).to(memory_format=torch.channels_last)
        if fabric.world_size > 1:
            share_batch_norms(model)
        optimizer = optimizer_of(model, settings)
        compiled: nn.Module = model
        if accelerator == "cuda" and settings.compile:
            compiled = cast(nn.Module, torch.compile(model))
        network, optimizer = fabric.setup(compiled, optimizer)
        average = states.Average(model, settings.average) if settings.average else None
        feed = Feed(images, ids, targets, weights, fabric.device)
        validate = Validation(model, images, ids[validation], truth, judge, fast=precision == "bf16-mixed")
        tolerance = partial(validate.chance, errors=settings.tolerance)

        state = states.restored(resume, run, model, optimizer, average) if resume else None
        if state is None:
            mine = part_of(fabric.global_rank, fabric.world_size, batch_size)
            rows = images.read(ids[validation][:1].tolist()).shape[-1]
            micro = settings.micro_batch or images_at_once(model, mine.stop - mine.start, rows, fabric.autocast())
            state = states.State(run, 0, [], 0, {}, micro)
            state.add(*validate.entry(0, None), model, tolerance)
        state.micro = agreed(min(state.micro, at_once or state.micro), min)
        for epoch in range(state.epoch + 1, settings.epochs + 1):
            if settings.patience and state.epoch - state.top_epoch >= settings.patience:
                log.info("no improvement in %d epochs: done after epoch %d", settings.patience, state.epoch)
                if progress:
                    progress(total, total)
                break
            torch.manual_seed(torch_seed(seed, epoch))  # for backbones that drop parts at random
            network.train()
            only_head(model, epoch <= settings.probe_epochs)
            loss_of = auc_margin if epoch > settings.epochs - settings.margin_epochs else cross_entropy
            watch = LossWatch(ids, every=1 if accelerator == "cpu" else LOSS_CHECK_STEPS)
            order = epoch_batches(training_rows, batch_size, seed, epoch, chances)
            for step, batch in enumerate(feed(_parts(order, fabric, settings, seed, epoch))):
                done = (epoch - 1) * steps + step
                set_learning_rate(optimizer, learning_rate_factor(done, total, settings.warmup))
                x = to_input(batch.pixels, model.preprocessing, batch.draws)
                x = x.contiguous(memory_format=torch.channels_last)

                per_image, state.micro = gradients(fabric, network, x, batch, loss_of, state.micro)
                fabric.clip_gradients(network, optimizer, max_norm=GRADIENT_NORM, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average:
                    average.update(model)

                watch.add(batch.rows, per_image)
                if progress:
                    progress(done + 1, total)
            with average.in_place_of(model) if average else nullcontext():
                entry, probabilities = validate.entry(epoch, watch.mean())
                state.add(entry, probabilities, model, tolerance)
            if on_epoch and fabric.is_global_zero:
                on_epoch(entry, probabilities)
            if resume and epoch < settings.epochs and fabric.is_global_zero:
                states.keep(resume, state, model, optimizer, average)

        only_head(model, False)
        model.load_state_dict(state.best)
        thresholds, temperature = validate.frozen(calibrate=settings.calibrate)
        model.temperature.fill_(temperature)
        model.to("cpu").to(memory_format=torch.contiguous_format).eval()
        if resume and fabric.is_global_zero:
            shutil.rmtree(resume, ignore_errors=True)
    best = state.history[state.best_epoch]
    training = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "images": len(training_rows),
        "validation_images": int(validation.sum()),
        "best_epoch": state.best_epoch,
        "validation_auroc": best["validation_auroc"],
        "top_epoch": state.top_epoch,
        "judged_by": judge.name if judge else "given labels",
        "accelerator": accelerator,
        "precision": precision,
        "batch_size": batch_size,
        "micro_batch": min(state.micro, batch_size),
        "untrained": list(untrained),
        "unvalidated": [finding for finding in model.findings if best["auroc"][finding] is None],
        "torch": str(torch.__version__),
    }
    log.info("trained on %d images in %.1f s", len(training_rows), time.perf_counter() - started)
    return FitResult(
        model, thresholds, state.history, state.best_epoch, untrained, tuple(training["unvalidated"]), training
    )


def _parts(
    order: Sequence[Rows], fabric: Fabric, settings: FinetuneSettings, seed: int, epoch: int
) -> Iterator[tuple[Rows, slice, Augmentation | None]]:
    """Each batch of an epoch, this worker's part of it, and how that part is augmented."""
    for step, rows in enumerate(order):
        part = part_of(fabric.global_rank, fabric.world_size, len(rows))
        draws = draw_augmentation(len(rows), seed, epoch, step) if settings.augment else None
        mine = draws and Augmentation(*(getattr(draws, one.name)[part] for one in fields(draws)))
        yield rows, part, mine
