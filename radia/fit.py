"""The training loop. It reads straight down; everything that happens to a model between base and candidate is here.

Lightning Fabric gives precision and devices; the order of the images, their augmentation and the learning rate depend
only on (seed, epoch, step), so that the same run gives the same weights, and so does one that was killed and resumed.
Imports no orchestration: it runs alone on a GPU machine.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from radia.errors import StorageFull, TrainingError, UnknownFinding
from radia.metrics import auroc, choose_thresholds
from radia.model import Augmentation, Checkpoint, ChestModel, to_input
from radia.predict import as_tensor, predict
from radia.workspace import written_whole

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from radia.settings import FinetuneSettings

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
Progress = Callable[[int, int], None]

ROTATION_DEGREES, SCALE, SHIFT = 7.0, 0.08, 0.04
GAMMA, GAIN, OFFSET = 0.2, 0.15, 0.08
"""Half widths of the uniform draws of the augmentation. No flip: the heart's side means something."""

GRADIENT_NORM = 1.0
LOSS_CHECK_STEPS = 20
"""On a GPU the loss is looked at so often: reading it each step would make the device wait."""


class Pixels(Protocol):
    """Where uint8 images come from; radia.images.ImageStore is one."""

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """The images of these ids, [n, rows, columns]."""
        ...


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
    progress: Progress | None = None,
    resume: Path | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> FitResult:
    """Trains the model on `ids[train]`, keeps the epoch that is best on `ids[validation]`, calibrates it there.

    targets, weights: [n, findings], targets in 0..1, a weight of 0 leaves a cell out. train, validation: [n] masks.
    sampling: [n], how often an image is drawn relative to the others (see balanced); without it, once an epoch.
    progress: called with (steps done, steps in all). resume: a folder for the full state after each epoch, from which
    the same run goes on after it was killed; emptied when it ends. on_epoch: called with each entry of the history.

    Raises TrainingError where training cannot start or the loss stops being finite, StorageFull where the state of an
    epoch cannot be kept.
    """
    ids = np.asarray(ids)
    targets, weights, untrained = _trainable(model, ids, targets, weights, train, validation)
    weights = weights * _finding_weights(model.findings, settings)
    judged = _judged(model, targets[validation], weights[validation])
    accelerator = _accelerator(settings.device)
    precision = _precision(settings.precision, accelerator)
    if settings.side is not None:
        model.preprocessing = replace(model.preprocessing, side=settings.side)
    training_rows = np.flatnonzero(train)
    chances = None if sampling is None else np.asarray(sampling, np.float64)[training_rows]
    batch_size = min(settings.batch_size, len(training_rows))
    micro = settings.micro_batch or batch_size
    steps = math.ceil(len(training_rows) / batch_size)
    total = settings.epochs * steps
    started = time.perf_counter()

    with threads(settings.threads), _quiet_fabric(), torch.random.fork_rng():
        run = _fingerprint(
            model, ids, targets, weights, train, validation, sampling, settings, seed, accelerator, precision
        )
        fabric = _fabric(accelerator, precision)
        model.to(fabric.device).to(memory_format=torch.channels_last)
        if fabric.world_size > 1:
            share_batch_norms(model)
        optimizer = _optimizer(model, settings)
        compiled: nn.Module = model
        if accelerator == "cuda" and settings.compile:
            compiled = cast(nn.Module, torch.compile(model))
        network, optimizer = fabric.setup(compiled, optimizer)
        average = _Average(model, settings.average) if settings.average else None
        validate = _Validation(model, images, ids, targets, weights, validation, judged, fast=precision == "bf16-mixed")

        state = _restored(resume, run, model, optimizer, average) if resume else None
        if state is None:
            state = _State(run, 0, [], 0, {})
            state.add(validate.entry(0, None), model)
        for epoch in range(state.epoch + 1, settings.epochs + 1):
            if settings.patience and state.epoch - state.best_epoch >= settings.patience:
                log.info("no improvement in %d epochs: done after epoch %d", settings.patience, state.epoch)
                if progress:
                    progress(total, total)
                break
            torch.manual_seed(_mixed(seed, epoch))  # for backbones that drop parts at random
            network.train()
            _only_head(model, epoch <= settings.probe_epochs)
            loss_of = auc_margin if epoch > settings.epochs - settings.margin_epochs else cross_entropy
            watch = _LossWatch(ids, every=1 if accelerator == "cpu" else LOSS_CHECK_STEPS)
            batches = _epoch_batches(training_rows, batch_size, seed, epoch, chances)
            for step, (rows, pixels) in enumerate(_prefetched(images, ids, batches, fabric)):
                done = (epoch - 1) * steps + step
                _set_learning_rate(optimizer, learning_rate_factor(done, total, settings.warmup))
                draws = draw_augmentation(len(rows), seed, epoch, step, fabric.device) if settings.augment else None
                x = to_input(pixels, model.preprocessing, draws).contiguous(memory_format=torch.channels_last)
                target, weight = (as_tensor(a[rows], fabric.device) for a in (targets, weights))

                per_image, micro = _gradients(fabric, network, x, target, weight, loss_of, micro)
                fabric.clip_gradients(network, optimizer, max_norm=GRADIENT_NORM, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average:
                    average.update(model)

                watch.add(rows, per_image)
                if progress:
                    progress(done + 1, total)
            with average.in_place_of(model) if average else nullcontext():
                entry = validate.entry(epoch, watch.mean())
                state.add(entry, model)
            if on_epoch:
                on_epoch(entry)
            if resume and epoch < settings.epochs and fabric.is_global_zero:
                _keep(resume, state, model, optimizer, average)

        _only_head(model, False)
        model.load_state_dict(state.best)
        thresholds, temperature = validate.frozen(calibrate=settings.calibrate)
        model.temperature.fill_(temperature)
        model.to("cpu").to(memory_format=torch.contiguous_format).eval()
    if resume:
        shutil.rmtree(resume, ignore_errors=True)
    training = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "images": len(training_rows),
        "validation_images": int(validation.sum()),
        "best_epoch": state.best_epoch,
        "validation_auroc": state.history[state.best_epoch]["validation_auroc"],
        "accelerator": accelerator,
        "precision": precision,
        "batch_size": batch_size,
        "micro_batch": min(micro, batch_size),
        "untrained": list(untrained),
        "unvalidated": [f for f, ok in zip(model.findings, judged, strict=True) if not ok],
        "torch": str(torch.__version__),
    }
    log.info("trained on %d images in %.1f s", len(training_rows), time.perf_counter() - started)
    return FitResult(
        model, thresholds, state.history, state.best_epoch, untrained, tuple(training["unvalidated"]), training
    )


# --- a step ---------------------------------------------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _gradients(
    fabric: Fabric, network: Any, x: Tensor, target: Tensor, weight: Tensor, loss_of: Loss, micro: int
) -> tuple[Tensor, int]:
    """Adds up the batch's gradients over parts of `micro` images and over workers; parts that do not fit are halved.

    Returns each image's loss, whose sum is the batch's mean over weighed cells, and the size of part that did fit.
    """
    rank, world = fabric.global_rank, fabric.world_size
    scale = weight.sum().clamp(min=1.0)
    while True:
        try:
            losses = []
            parts = list(_parts(rank, world, len(x), micro))
            for number, part in enumerate(parts):
                with fabric.no_backward_sync(network, enabled=number + 1 < len(parts) and world > 1):
                    per_image = loss_of(network(x[part]).float(), target[part], weight[part]) / scale
                    fabric.backward(per_image.sum() * world)
                losses.append(per_image.detach())
            return _gathered(fabric, torch.cat(losses), len(x)), micro
        except torch.OutOfMemoryError as error:
            micro = min(micro, len(x)) // 2
            if micro < 1:
                raise TrainingError(
                    "one image alone does not fit into the device's memory: choose a smaller finetune.side or backbone"
                ) from error
            log.warning("out of memory: %d images at once from here on, the batch stays %d", micro, len(x))
            network.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()


def _parts(rank: int, world: int, n: int, micro: int) -> Iterator[slice]:
    first, last = n * rank // world, n * (rank + 1) // world
    for start in range(first, last, micro):
        yield slice(start, min(start + micro, last))


def _gathered(fabric: Fabric, mine: Tensor, n: int) -> Tensor:
    """The losses of all workers' images, [n], in the batch's order."""
    if fabric.world_size == 1:
        return mine
    whole = torch.zeros(n, device=mine.device)
    first = n * fabric.global_rank // fabric.world_size
    whole[first : first + len(mine)] = mine
    torch.distributed.all_reduce(whole)
    return whole


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighed binary cross-entropy of each image, summed over findings, [n]."""
    cells = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cells * weight).sum(dim=1)


def auc_margin(logits: Tensor, target: Tensor, weight: Tensor, *, margin: float = 1.0) -> Tensor:
    """Each image's share of the AUC margin loss (Yuan et al., ICCV 2021), [n], with the batch's best a, b, alpha.

    Per finding: variance of the positives' scores + variance of the negatives' + max(0, margin - difference of their
    means)^2. Findings of which the batch has one class only are left out.
    """
    score = torch.sigmoid(logits)
    positive, negative = weight * target, weight * (1 - target)
    n_pos, n_neg = positive.sum(0), negative.sum(0)
    known = ((n_pos > 0) & (n_neg > 0)).to(score.dtype)
    mean_pos = (positive * score).sum(0) / n_pos.clamp(min=1e-6)
    mean_neg = (negative * score).sum(0) / n_neg.clamp(min=1e-6)
    spread = positive * (score - mean_pos) ** 2 / n_pos.clamp(min=1e-6)
    spread = spread + negative * (score - mean_neg) ** 2 / n_neg.clamp(min=1e-6)
    apart = (margin - (mean_pos - mean_neg)).clamp(min=0) ** 2 / len(score)
    # in the units of a sum over cells, as cross_entropy's
    return ((spread + apart) * known * weight.sum(0)).sum(dim=1)


class _Average:
    """A moving average of the weights, which is what is judged and kept."""

    def __init__(self, model: ChestModel, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self.values = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: ChestModel) -> None:
        """Takes a step's weights in; the first steps count more, so that the start is forgotten."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 10))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.values[name].lerp_(tensor, 1 - decay)
            else:
                self.values[name].copy_(tensor)

    @contextmanager
    def in_place_of(self, model: ChestModel) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.values)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"steps": self._steps, "values": self.values}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a kept state."""
        self._steps = state["steps"]
        for name, tensor in state["values"].items():
            self.values[name].copy_(tensor)


def _only_head(model: ChestModel, only: bool) -> None:
    """Whether the trunk rests: no gradients, batch norms as they are."""
    model.trunk.requires_grad_(not only)
    if only:
        model.trunk.eval()


# --- what depends on (seed, epoch, step) alone ----------------------------------------------------------------------


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Part of the peak learning rate at a step: a straight rise over the warm-up, then half a cosine down to 0."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - rising) / (total - rising + 1)))


def draw_augmentation(n: int, seed: int, epoch: int, step: int, device: torch.device | str = "cpu") -> Augmentation:
    """Rotation, scale, shift, gamma, gain and offset for n images."""
    rng = np.random.default_rng([2, seed, epoch, step])
    angle, scale, x, y, gamma, gain, offset = rng.uniform(-1, 1, size=(7, n)).astype(np.float32)
    angle, scale = math.radians(ROTATION_DEGREES) * angle, 1 + SCALE * scale
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    affine = np.stack([np.stack([cosine, -sine, 2 * SHIFT * x], -1), np.stack([sine, cosine, 2 * SHIFT * y], -1)], 1)
    tone = (np.exp(GAMMA * gamma), 1 + GAIN * gain, OFFSET * offset)
    return Augmentation(*(torch.from_numpy(value).to(device) for value in (affine, *tone)))


def balanced(patients: Sequence[str] | NDArray[Any], sites: Sequence[str] | NDArray[Any]) -> NDArray[np.float64]:
    """How often to draw each image so that every site counts the same, and within it every patient."""
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    _, site = np.unique(np.asarray(sites), return_inverse=True)
    couples, couple = np.unique(np.stack([site, patient]), axis=1, return_inverse=True)
    couple = couple.reshape(-1)
    chances = 1 / np.bincount(couple)[couple] / np.bincount(couples[0])[site]
    result: NDArray[np.float64] = chances / chances.mean()
    return result


def softened(targets: Floats, wrong: NDArray[np.floating[Any]]) -> Floats:
    """Targets moved towards the other answer by the probability that they are wrong (both [n, findings], in 0..1)."""
    return (targets * (1 - wrong) + (1 - targets) * wrong).astype(np.float32)


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.default_rng([3, seed, epoch]).integers(2**63))


def _epoch_batches(
    rows: Rows, size: int, seed: int, epoch: int, chances: NDArray[np.float64] | None = None
) -> list[Rows]:
    """A new order each epoch, or as many draws. The last batch is filled up from the start: all have the same shape."""
    rng = np.random.default_rng([1, seed, epoch])
    drawn = None if chances is None else rng.choice(rows, size=len(rows), p=chances / chances.sum())
    order = rng.permutation(rows) if drawn is None else drawn
    padded = np.concatenate([order, order[: -len(order) % size]])
    return list(padded.reshape(-1, size))


# --- before the first step ------------------------------------------------------------------------------------------


def _trainable(
    model: ChestModel,
    ids: NDArray[Any],
    targets: Floats,
    weights: Floats,
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Targets and weights as float32, with the findings left out of the loss that have no positive in training."""
    shape = (len(ids), len(model.findings))
    if targets.shape != shape or weights.shape != shape:
        raise TrainingError(
            f"targets {targets.shape} and weights {weights.shape} do not fit: expected {shape}, images by findings"
        )
    if not train.any() or not validation.any():
        raise TrainingError(
            f"{int(train.sum())} images to train on and {int(validation.sum())} to validate on: both need some; "
            "more patients are needed, or another split in params.yaml"
        )
    targets, weights = targets.astype(np.float32), weights.astype(np.float32)
    if not (np.isfinite(targets).all() and np.isfinite(weights).all() and targets.min() >= 0 and targets.max() <= 1):
        raise TrainingError("targets must lie in 0..1 and weights be finite: apply the uncertainty policy first")
    positive = np.any(((targets > 0) & (weights > 0))[train], axis=0)
    if not positive.any():
        raise TrainingError("no finding has a single positive image to train on: nothing can be learnt")
    untrained = tuple(finding for finding, there in zip(model.findings, positive, strict=True) if not there)
    if untrained:
        log.warning("no positive image to train on, left as the base has them: %s", ", ".join(untrained))
        weights = weights.copy()
        # only in the loss: validation keeps judging what the base can do
        weights[np.ix_(train, ~positive)] = 0.0
    return targets, weights, untrained


def _judged(model: ChestModel, targets: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Which findings validation has both present and absent, [findings]."""
    counts = weights > 0
    judged: NDArray[np.bool_] = np.any(counts & (targets >= 0.5), axis=0) & np.any(counts & (targets < 0.5), axis=0)
    if not judged.any():
        raise TrainingError("no finding is both present and absent among the validation images: no epoch can be chosen")
    if not judged.all():
        skipped = [finding for finding, ok in zip(model.findings, judged, strict=True) if not ok]
        log.warning("not both present and absent in validation, left out of its mean: %s", ", ".join(skipped))
    return judged


def _accelerator(device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("CUDA was asked for and torch finds no such device: install a driver, or set device: auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _precision(asked: str, accelerator: str) -> str:
    if asked != "auto":
        return asked
    # emulated bf16 is several times slower than float32
    native = torch.cuda.is_bf16_supported() if accelerator == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def _fabric(accelerator: str, precision: str) -> Fabric:
    """One device, or as many as torchrun started processes for."""
    from lightning_fabric import Fabric

    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.deterministic = True
    options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "devices": 1}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        local, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_WORLD_SIZE", "1"))
        options |= {"strategy": "ddp", "devices": local, "num_nodes": nodes}
    fabric = Fabric(**options)
    fabric.launch()
    return fabric


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all workers; torch's own knows GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        n = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        values = x.float()
        sums = torch.cat([values.sum((0, 2, 3)), (values**2).sum((0, 2, 3)), n])
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
        channels, count = x.shape[1], sums[-1]
        mean, square = sums[:channels] / count, sums[channels:-1] / count
        variance = (square - mean**2).clamp(min=0)
        with torch.no_grad():
            cast(Tensor, self.running_mean).lerp_(mean, self.momentum or 0.1)
            cast(Tensor, self.running_var).lerp_(variance * count / (count - 1), self.momentum or 0.1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shared: Tensor = values * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)
        return shared.to(x.dtype)


def share_batch_norms(model: nn.Module) -> None:
    """Makes every batch norm take its statistics from the images of all workers, as one worker would."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared: Any = nn.SyncBatchNorm if child.weight.is_cuda else _SharedBatchNorm
            new: nn.Module = shared(child.num_features, child.eps, child.momentum or 0.1).to(child.weight.device)
            new.load_state_dict(child.state_dict())
            setattr(model, name, new)
        else:
            share_batch_norms(child)


def _finding_weights(findings: tuple[str, ...], settings: FinetuneSettings) -> Floats:
    unknown = [finding for finding in settings.finding_weights if finding not in findings]
    if unknown:
        raise UnknownFinding(unknown[0], findings)
    return np.array([settings.finding_weights.get(finding, 1.0) for finding in findings], np.float32)


def _optimizer(model: ChestModel, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """AdamW; the learning rate falls from the head down to the first layer; biases and norms are not decayed."""
    layers = [layer for layer in model.trunk.children() if any(True for _ in layer.parameters())]
    groups: list[dict[str, Any]] = []
    for height, layer in enumerate([*layers, model.head]):
        peak = settings.learning_rate * settings.layer_decay ** (len(layers) - height)
        for decay, is_matrix in ((settings.weight_decay, True), (0.0, False)):
            parameters = [parameter for parameter in layer.parameters() if (parameter.ndim > 1) == is_matrix]
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "peak": peak})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _set_learning_rate(optimizer: Any, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads for torch inside the block (0: one a core that this process may use)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_fabric() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        yield


# --- batches --------------------------------------------------------------------------------------------------------


def _prefetched(
    images: Pixels, ids: NDArray[Any], batches: Iterable[Rows], fabric: Fabric
) -> Iterator[tuple[Rows, Tensor]]:
    """Rows and pixels of each batch, on the device; the next batch is read while this one is trained on."""
    pin = fabric.device.type == "cuda"

    def read(rows: Rows) -> Tensor:
        pixels = as_tensor(images.read(ids[rows].tolist()), "cpu")
        return pixels.pin_memory() if pin else pixels

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
        upcoming = iter(batches)
        first = next(upcoming)
        pending = (first, reader.submit(read, first))
        for rows in upcoming:
            following = (rows, reader.submit(read, rows))
            yield pending[0], pending[1].result().to(fabric.device, non_blocking=True)
            pending = following
        yield pending[0], pending[1].result().to(fabric.device, non_blocking=True)


class _LossWatch:
    """The losses of an epoch; stops the training with the images' ids when one is not finite."""

    def __init__(self, ids: NDArray[Any], *, every: int) -> None:
        self._ids = ids
        self._every = every
        self._losses: list[Tensor] = []
        self._unseen: list[tuple[Rows, Tensor]] = []

    def add(self, rows: Rows, per_image: Tensor) -> None:
        """The images' shares of a batch's loss, left on the device until they are looked at."""
        self._losses.append(per_image.sum())
        self._unseen.append((rows, per_image))
        if len(self._unseen) >= self._every:
            self._look()

    def mean(self) -> float:
        """The epoch's mean loss a labelled cell."""
        self._look()
        return float(torch.stack(self._losses).mean())

    def _look(self) -> None:
        for rows, per_image in self._unseen:
            finite = torch.isfinite(per_image).cpu().numpy()
            if not finite.all():
                bad = [str(image) for image in self._ids[rows[~finite]]]
                some = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
                raise TrainingError(
                    f"the loss of {len(bad)} of {len(rows)} images in one batch is not finite ({some}): look at these "
                    "images, or lower finetune.learning_rate"
                )
        self._unseen.clear()


# --- validation -----------------------------------------------------------------------------------------------------


class _Validation:
    """Judges the model on the validation images, as they are: no augmentation."""

    def __init__(
        self,
        model: ChestModel,
        images: Pixels,
        ids: NDArray[Any],
        targets: Floats,
        weights: Floats,
        validation: NDArray[np.bool_],
        judged: NDArray[np.bool_],
        *,
        fast: bool,
    ) -> None:
        self._model = model
        self._images = images
        self._ids = ids[validation].tolist()
        self._truth = np.where(weights[validation] > 0, (targets[validation] >= 0.5).astype(np.float64), np.nan)
        self._judged = judged
        self._fast = fast

    def entry(self, epoch: int, loss: float | None) -> dict[str, Any]:
        """What the history keeps of an epoch."""
        scores = self._probabilities(fast=self._fast)
        by_finding: dict[str, float | None] = {}
        for column, finding in enumerate(self._model.findings):
            known = ~np.isnan(self._truth[:, column])
            value = auroc(self._truth[known, column], scores[known, column]) if self._judged[column] else None
            by_finding[finding] = value
        values = [value for value in by_finding.values() if value is not None]
        return {"epoch": epoch, "loss": loss, "validation_auroc": float(np.mean(values)), "auroc": by_finding}

    def frozen(self, *, calibrate: bool) -> tuple[dict[str, float], float]:
        """The thresholds by finding, and the temperature, both of the model as it stands."""
        self._model.temperature.fill_(1.0)
        scores = self._probabilities(fast=False).astype(np.float64)
        temperature = best_temperature(self._truth, scores) if calibrate else 1.0
        chosen = choose_thresholds(self._truth, _tempered(scores, temperature))
        return {f: float(t) for f, t in zip(self._model.findings, chosen, strict=True)}, temperature

    def _probabilities(self, *, fast: bool) -> Floats:
        chunks = (self._images.read(self._ids[start : start + 64]) for start in range(0, len(self._ids), 64))
        device = next(self._model.parameters()).device
        return predict(self._model, chunks, device=device, fast=fast).probabilities


def best_temperature(truth: NDArray[np.float64], probabilities: NDArray[np.float64]) -> float:
    """The temperature in 0.25..4 of least log loss (Guo et al., ICML 2017). truth: [n, f]; NaN is left out."""
    known = ~np.isnan(truth)
    grid = np.exp(np.linspace(math.log(0.25), math.log(4.0), 129))
    losses = []
    for temperature in grid:
        p = np.clip(_tempered(probabilities[known], float(temperature)), 1e-12, 1 - 1e-12)
        losses.append(-np.mean(truth[known] * np.log(p) + (1 - truth[known]) * np.log1p(-p)))
    return float(grid[int(np.argmin(losses))])


def _tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    logits = np.log(clipped) - np.log1p(-clipped)
    tempered: NDArray[np.float64] = 1 / (1 + np.exp(-logits / temperature))
    return tempered


# --- the full state, kept after each epoch --------------------------------------------------------------------------


@dataclass
class _State:
    """How far a run has come. `best` holds the weights of the best epoch so far."""

    run: str
    epoch: int
    history: list[dict[str, Any]]
    best_epoch: int
    best: dict[str, Tensor]

    def add(self, entry: dict[str, Any], model: ChestModel) -> None:
        """Takes an epoch in, and the model's weights if it is the best so far (the earliest of equals)."""
        self.epoch = entry["epoch"]
        self.history.append(entry)
        if not self.best or entry["validation_auroc"] > self.history[self.best_epoch]["validation_auroc"]:
            self.best_epoch = self.epoch
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _fingerprint(model: ChestModel, *parts: Any) -> str:
    """SHA-256 of everything that decides a run's outcome: a state of another run is never gone on with."""
    digest = hashlib.sha256(repr((model.backbone, model.findings, model.preprocessing, torch.__version__)).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.dtype.kind, part.shape)).encode())
            digest.update("\0".join(part.tolist()).encode() if part.dtype.kind in "UOT" else part.tobytes())
        else:
            digest.update((part.digest() if hasattr(part, "digest") else repr(part)).encode())
    return digest.hexdigest()


def _state_file(resume: Path, run: str) -> Path:
    return resume / f"{run[:32]}.state"


def _keep(resume: Path, state: _State, model: ChestModel, optimizer: Any, average: _Average | None) -> None:
    values = {
        "average": average.state() if average else None,
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best": state.best,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    resume.mkdir(parents=True, exist_ok=True)
    needed = 5 * sum(tensor.nbytes for tensor in state.best.values())
    free = shutil.disk_usage(resume).free
    if free < needed:
        raise StorageFull(
            f"{free / 1e6:.0f} MB free where the training keeps its state, {needed / 1e6:.0f} MB needed: "
            "free some and run again, the training goes on from its last epoch"
        )
    with written_whole(_state_file(resume, state.run)) as partial:
        torch.save(values, partial)


def _restored(resume: Path, run: str, model: ChestModel, optimizer: Any, average: _Average | None) -> _State | None:
    path = _state_file(resume, run)
    if not path.is_file():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        state = _State(run, values["epoch"], values["history"], values["best_epoch"], values["best"])
        model.load_state_dict(values["model"])
        optimizer.load_state_dict(values["optimizer"])
        if average:
            average.restore(values["average"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged: delete it, the training then starts from its first epoch") from error
    log.info("going on after epoch %d", state.epoch)
    return state
