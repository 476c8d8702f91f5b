"""The full state of a run, kept after each epoch, from which a killed one goes on to the same weights."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radia.errors import StorageFull, TrainingError
from radia.model import ChestModel
from radia.workspace import written_whole

log = logging.getLogger(__name__)

SIZE_OF_STATE = 5
"""A state in sizes of the model: its weights, the optimizer's two averages, the best epoch's, the moving average's."""


@dataclass
class State:
    """How far a run has come. `best` holds the weights of the best epoch so far; micro: images that fit at once."""

    run: str
    epoch: int
    history: list[dict[str, Any]]
    best_epoch: int
    best: dict[str, Tensor]
    micro: int

    def add(self, entry: dict[str, Any], model: ChestModel) -> None:
        """Takes an epoch in, and the model's weights if it is the best so far (the earliest of equals)."""
        self.epoch = entry["epoch"]
        self.history.append(entry)
        if not self.best or entry["validation_auroc"] > self.history[self.best_epoch]["validation_auroc"]:
            self.best_epoch = self.epoch
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


class Average:
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


def fingerprint(model: ChestModel, *parts: Any) -> str:
    """SHA-256 of everything that decides a run's outcome: a state of another run is never gone on with."""
    known = (model.backbone, model.findings, model.preprocessing, model.pooling, model.tree, model.views)
    digest = hashlib.sha256(repr((known, torch.__version__)).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.dtype.kind, part.shape)).encode())
            digest.update("\0".join(part.tolist()).encode() if part.dtype.kind in "UOT" else part.tobytes())
        else:
            digest.update((part.digest() if hasattr(part, "digest") else repr(part)).encode())
    return digest.hexdigest()


def room_for_state(resume: Path, model: ChestModel) -> None:
    """Raises StorageFull where an epoch's state would not fit: better now than after hours."""
    resume.mkdir(parents=True, exist_ok=True)
    needed = SIZE_OF_STATE * sum(tensor.nbytes for tensor in model.state_dict().values())
    free = shutil.disk_usage(resume).free
    if free < needed:
        raise StorageFull(
            f"{free / 1e6:.0f} MB free where the training keeps its state, {needed / 1e6:.0f} MB needed: "
            "free some and run again, the training goes on from its last epoch"
        )


def keep(resume: Path, state: State, model: ChestModel, optimizer: Any, average: Average | None) -> None:
    """Writes the state into the folder, whole or not at all. Raises StorageFull."""
    values = {
        "average": average.state() if average else None,
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best": state.best,
        "micro": state.micro,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    room_for_state(resume, model)
    with written_whole(_file(resume, state.run)) as partial:
        torch.save(values, partial)


def restored(resume: Path, run: str, model: ChestModel, optimizer: Any, average: Average | None) -> State | None:
    """The state that this run left in the folder, put into model, optimizer and average. Raises TrainingError."""
    path = _file(resume, run)
    if not path.is_file():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        known = (values[name] for name in ("epoch", "history", "best_epoch", "best", "micro"))
        state = State(run, *known)
        model.load_state_dict(values["model"])
        optimizer.load_state_dict(values["optimizer"])
        if average:
            average.restore(values["average"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged: delete it, the training then starts from its first epoch") from error
    log.info("going on after epoch %d", state.epoch)
    return state


def _file(resume: Path, run: str) -> Path:
    return resume / f"{run[:32]}.state"
