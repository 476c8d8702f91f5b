"""The model in use, as the web app serves it: loaded once a process, exchanged while requests go on.

A request takes what is served now (`ModelInUse.now`) and keeps it to its end; a thread beside the requests asks the
registry and puts another model in its place when the alias `champion` has moved. Weights are memory-mapped: processes
of one machine share them. When the registry cannot be reached, the last model goes on and says since when.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, replace

from radia import familiarity, registry
from radia.errors import NoModel, RadiaError
from radia.familiarity import Familiarity
from radia.model import Checkpoint, ChestModel, load_checkpoint
from radia.workspace import Workspace

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How old the registry's answer may be before it is asked again."""


@dataclass(frozen=True)
class Served:
    """One model as it is served. Never changed: who holds one answers with this model and no other.

    override: who put it in use against the gate, and why; empty where the gate passed. unreachable_since: Unix time
    since which the registry has not answered; None while it does. familiarity: what tells images like those of its
    training; None where its checkpoint keeps none.
    """

    version: str
    model: ChestModel
    checkpoint: Checkpoint
    override: str = ""
    unreachable_since: float | None = None
    familiarity: Familiarity | None = None

    @property
    def name(self) -> str:
        """Model and version."""
        return f"cxr version {self.version}"

    @property
    def stand_in(self) -> bool:
        """Whether it was trained on phantoms, so that the site can be tried before it has a model."""
        return self.checkpoint.stands_in


class ModelInUse:
    """The champion of the registry."""

    def __init__(self, site: Workspace, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._site = site
        self._look_seconds = look_seconds
        self._served: Served | None = None
        self._looked = 0.0
        self._process = os.getpid()
        self._changing = threading.Lock()

    def now(self) -> Served:
        """What is served now. Waits for the registry the first time only. Raises NoModel, RegistryError."""
        served = self._served
        if served is None:
            self.look()
            return self._known()
        if time.monotonic() - self._looked > self._look_seconds:
            self._looked = time.monotonic()
            threading.Thread(target=self._look_quietly, name="model in use", daemon=True).start()
        return served

    def look(self) -> None:
        """Asks the registry, and serves what is in use there from now on.

        Raises NoModel where nothing is in use; RegistryError, CheckpointError where it cannot be had and no other
        model is served that could go on.
        """
        with self._unforked():
            self._looked = time.monotonic()
            try:
                self._served = self._in_use()
            except RadiaError as error:
                if self._served is None:
                    raise
                log.warning("the registry has no model to give: %s", type(error).__name__)
                since = self._served.unreachable_since or time.time()
                self._served = replace(self._served, unreachable_since=since)

    def _in_use(self) -> Served:
        champion = registry.champion(self._site)
        if champion is None:
            raise NoModel("no model is in use yet: run `radia run`, or approve a candidate")
        reason = champion.tags.get("override", "")
        override = f"{champion.tags.get('approver', 'somebody')}: {reason}" if reason else ""
        served = self._served
        if served is not None and served.version == champion.version:
            return replace(served, override=override, unreachable_since=None)
        folder = registry.checkpoint_folder(self._site, f"mlflow:cxr/{champion.version}")
        model, checkpoint = load_checkpoint(folder, mapped=True)
        return Served(champion.version, model, checkpoint, override, familiarity=familiarity.load(folder))

    def _look_quietly(self) -> None:
        try:
            self.look()
        except RadiaError:
            log.warning("the model in use could not be looked for", exc_info=True)

    def _known(self) -> Served:
        if self._served is None:
            raise NoModel("no model is in use yet: run `radia run`, or approve a candidate")
        return self._served

    def _unforked(self) -> threading.Lock:
        """The lock of this process: one taken while the parent forked would never be given back here."""
        if self._process != os.getpid():
            self._process, self._changing = os.getpid(), threading.Lock()
        return self._changing
