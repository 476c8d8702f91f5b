"""MLflow hears of a training while it goes on. Where it cannot be reached, the training goes on all the same."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia.errors import RegistryError
from radia.steps.run import Run
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from radia.registry import Training

log = logging.getLogger(__name__)

TOLD = "training"
"""The folder below `models` in which lies what MLflow is told of the candidate's training, for who comes later."""
PAUSE_SECONDS = 60.0
"""After MLflow could not be reached it is left alone for so long."""
DRAW_SECONDS = 15.0
"""Figures are drawn no more often."""

Draw = Callable[[Mapping[str, Any], "NDArray[np.float32]"], bytes]


class Telling:
    """Told every epoch of one training; see radia.registry.open_training for its key."""

    def __init__(self, run: Run, name: str, key: str, *, examples: Draw) -> None:
        self._site = run.workspace
        self._name, self._key, self._examples = name, key, examples
        self._folder = run.workspace.models / TOLD
        self._history: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}
        self._run_id = ""
        self._quiet_until = self._drawn = 0.0
        self._last: tuple[Mapping[str, Any], NDArray[np.float32]] | None = None
        self._tell()

    def epoch(self, entry: Mapping[str, Any], probabilities: NDArray[np.float32]) -> None:
        """An entry of the history, and what the model says of the validation images."""
        self._history.append(dict(entry))
        if time.monotonic() - self._drawn >= DRAW_SECONDS or not self._files:
            self._draw(entry, probabilities)
        self._last = entry, probabilities
        self._tell()

    def end(self, history: list[dict[str, Any]]) -> None:
        """The training is done; its whole history counts, with what was told before it was killed."""
        self._history = list(history)
        if self._last is not None:
            self._draw(*self._last)
        self._quiet_until = 0.0
        self._tell("FINISHED")
        with written_whole(self._folder) as partial:
            partial.mkdir()
            (partial / "history.json").write_text(json.dumps({"run": self._run_id, "history": self._history}))
            for name, content in self._files.items():
                (partial / name).write_bytes(content)

    def failed(self) -> None:
        """The training ended in an error."""
        self._tell("FAILED")

    def _draw(self, entry: Mapping[str, Any], probabilities: NDArray[np.float32]) -> None:
        from radia.learning import curves

        self._files = {
            "learning_curves.png": curves(self._history),
            "examples.png": self._examples(entry, probabilities),
        }
        self._drawn = time.monotonic()

    def _tell(self, ended: str = "") -> None:
        from radia import registry
        from radia.learning import metrics

        if time.monotonic() < self._quiet_until:
            return
        try:
            self._run_id = self._run_id or registry.open_training(self._site, self._name, self._key)
            said = registry.Training(self._run_id, tuple(metrics(self._history)), self._files)
            registry.tell_training(self._site, said, ended=ended)
        except RegistryError as error:
            log.warning("the training goes on without MLflow, which is told later: %s", error)
            self._quiet_until = time.monotonic() + PAUSE_SECONDS


def told(site: Workspace) -> Training | None:
    """What MLflow is to know of the candidate's training, whether it heard of it or not."""
    from radia.learning import metrics
    from radia.registry import Training

    folder = site.models / TOLD
    if not (folder / "history.json").is_file():
        return None
    kept = json.loads((folder / "history.json").read_text())
    files = {path.name: path.read_bytes() for path in _pictures(folder)}
    return Training(kept["run"], tuple(metrics(kept["history"])), files)


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))
