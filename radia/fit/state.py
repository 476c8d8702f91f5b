"""The full state of a run, kept after each epoch, from which a killed one goes on to the same weights.

The last two epochs' are kept, each with its SHA-256: where the newer one is cut or damaged, the run goes on from the
older one, which costs an epoch and changes nothing in the outcome.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radia.errors import StorageFull, TrainingError
from radia.fit.workers import first_says
from radia.model import ChestModel
from radia.workspace import written_whole

log = logging.getLogger(__name__)

Tolerance = Callable[[NDArray[np.float32], NDArray[np.float32]], float]
_KEPT = ("epoch", "history", "best_epoch", "best", "micro", "top_epoch", "top")

SIZE_OF_STATE = 5
"""A state in sizes of the model: its weights, the optimizer's two averages, the best epoch's, the moving average's."""

KEPT = 2
"""Epochs whose state is kept."""


@dataclass
class State:
    """How far a run has come. `best` holds the weights of the epoch to keep so far; micro: images that fit at once.

    top_epoch: the one of the highest AUROC; top: what it said of the validation images, [n, findings]. best_epoch: that
    one, or a later one that chance alone may have put below it.
    """

    run: str
    epoch: int
    history: list[dict[str, Any]]
    best_epoch: int
    best: dict[str, Tensor]
    micro: int
    top_epoch: int = 0
    top: Tensor = field(default_factory=lambda: torch.empty(0))

    def add(
        self, entry: dict[str, Any], probabilities: NDArray[np.float32], model: ChestModel, tolerance: Tolerance
    ) -> None:
        """Takes an epoch in, and the model's weights if it is to be kept.

        tolerance: how far an epoch may lie below the best, from what both say of the validation images; where it is 0,
        the best is kept (the earliest of equals). Of several workers, the first one's word counts: no two may differ on
        whether the run ends here.
        """
        entry, probabilities = first_says((entry, probabilities))
        self.epoch = entry["epoch"]
        self.history.append(entry)
        below = self.history[self.top_epoch]["validation_auroc"] - entry["validation_auroc"]
        if not self.best or below < 0:
            self.top_epoch, self.top = self.epoch, torch.from_numpy(probabilities.copy())
        elif below >= tolerance(self.top.numpy(), probabilities):
            return
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
        now = model.state_dict()
        moving = [name for name, tensor in now.items() if tensor.is_floating_point()]
        # all at once: one by one, a GPU would wait for hundreds of small calls
        torch._foreach_lerp_([self.values[name] for name in moving], [now[name] for name in moving], 1 - decay)
        for name in now.keys() - set(moving):
            self.values[name].copy_(now[name])

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


def room_for_state(resume: Path, model: ChestModel, *, states: int = KEPT + 1) -> None:
    """Raises StorageFull where so many epochs' states would not fit: better now than after hours.

    states: the last ones and the next, which is whole before the oldest goes; what is there already needs no room.
    """
    resume.mkdir(parents=True, exist_ok=True)
    needed = states * SIZE_OF_STATE * sum(tensor.nbytes for tensor in model.state_dict().values())
    needed -= sum(path.stat().st_size for path in resume.glob("*.state"))
    free = shutil.disk_usage(resume).free
    if free < needed:
        raise StorageFull(
            f"{free / 1e6:.0f} MB free where the training keeps its state, {needed / 1e6:.0f} MB needed: "
            "free some and run again, the training goes on from its last epoch"
        )


def keep(resume: Path, state: State, model: ChestModel, optimizer: Any, average: Average | None) -> None:
    """Writes the state into the folder, whole or not at all, and lets the last but one go. Raises StorageFull."""
    values = {
        "average": average.state() if average else None,
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best": state.best,
        "micro": state.micro,
        "top_epoch": state.top_epoch,
        "top": state.top,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    room_for_state(resume, model)
    memory = BytesIO()
    torch.save(values, memory)  # not into the file: torch calls a full disk a RuntimeError
    content = memory.getbuffer()
    with written_whole(_file(resume, state.run, state.epoch)) as partial, partial.open("wb") as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    for old in _kept(resume, state.run)[KEPT:]:
        old.unlink()


def restored(resume: Path, run: str, model: ChestModel, optimizer: Any, average: Average | None) -> State | None:
    """The newest whole state that this run left in the folder, put into model, optimizer and average.

    Says in the log which are damaged. Several workers all have the first one's. Raises TrainingError where none is
    whole.
    """
    values = first_says(_newest(resume, run))
    if values is None:
        return None
    state = State(run, *(values[name] for name in _KEPT))
    model.load_state_dict(values["model"])
    optimizer.load_state_dict(values["optimizer"])
    if average:
        average.restore(values["average"])
    log.info("going on after epoch %d", state.epoch)
    return state


def _newest(resume: Path, run: str) -> dict[str, Any] | None:
    there = _kept(resume, run)
    for path in there:
        try:
            return _read(path)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError):
            log.warning("%s is damaged: going on from the epoch before, if that is whole", path.name)
    if there:
        raise TrainingError(
            f"no state in {resume} is whole ({len(there)} damaged): delete them, and the training starts anew"
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    digest, content = (whole := path.read_bytes())[:32], whole[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError
    values: dict[str, Any] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return values


def _kept(resume: Path, run: str) -> list[Path]:
    """This run's states, the newest first."""
    return sorted(resume.glob(f"{run[:32]}-*.state"), reverse=True)


def _file(resume: Path, run: str, epoch: int) -> Path:
    return resume / f"{run[:32]}-{epoch:05d}.state"
