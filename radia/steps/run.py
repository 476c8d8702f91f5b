"""What every step has: where it works, what came of it, and how it knows that nothing need be done again."""

from __future__ import annotations

import getpass
import json
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from radia import __version__, digests
from radia.ledger import Ledger, file_digests, open_ledger
from radia.settings import Settings, load_settings, workspace
from radia.workspace import Workspace, written_whole

Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much is done and how much there is."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Run:
    """Where a step works, with what settings, and on whose behalf."""

    workspace: Workspace
    settings: Settings
    actor: str
    progress: Progress = silent
    tags: dict[str, str] = field(default_factory=dict)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger that every step appends to."""
        return open_ledger(self.workspace)

    def ticker(self, step: str) -> Callable[[int, int], None]:
        """The progress callback of one step."""
        return lambda done, total: self.progress(step, done, total)


@dataclass(frozen=True)
class Outcome:
    """What a step took and gave, by digest, and what a person wants to know of it."""

    step: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    summary: dict[str, Any]
    reused: bool = False


Work = tuple[dict[str, str], dict[str, Any]]
"""Digests of what a step wrote, and what a person wants to know of it."""


def open_run(
    *,
    data: Path | None = None,
    params: Path | None = None,
    progress: Progress = silent,
    tags: dict[str, str] | None = None,
) -> Run:
    """A run in the site's data folder with the settings in force."""
    site = workspace(data)
    site.root.mkdir(parents=True, exist_ok=True)
    return Run(site, load_settings(params), _actor(), progress, tags or {})


def once(
    run: Run,
    step: str,
    part: str = "",
    *,
    inputs: dict[str, str],
    produces: Sequence[Path],
    work: Callable[[], Work],
) -> Outcome:
    """Does the work unless its record says that it was done with these inputs, and what it made is still there."""
    record = run.workspace.records / f"{step}{'-' if part else ''}{part}.json"
    inputs = {**inputs, "radia": __version__}
    past = _read_record(record)
    if past is not None and past.inputs == inputs and all(path.exists() for path in produces):
        return replace(past, reused=True)
    run.progress(step, 0, 1)
    outputs, summary = work()
    outcome = Outcome(step, inputs, outputs, summary)
    run.ledger.append(
        step,
        actor=run.actor,
        inputs=inputs,
        outputs=outputs,
        parameters={"summary": _exact(summary), **run.tags},
        files=file_digests(run.workspace, (path for path in produces if path.is_file())),
        once=digests.of_json([step, part, inputs, outputs]),
    )
    with written_whole(record) as partial:
        partial.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    run.progress(step, 1, 1)
    return outcome


def recorded(site: Workspace, step: str) -> list[Outcome]:
    """What a step did last: one outcome, or one for each batch."""
    paths = [site.records / f"{step}.json", *sorted(site.records.glob(f"{step}-*.json"))]
    found = [past for path in paths if (past := _read_record(path)) is not None]
    return [past for past in found if past.step == step]


def _read_record(path: Path) -> Outcome | None:
    return Outcome(**json.loads(path.read_text())) if path.is_file() else None


def _exact(value: Any) -> Any:
    """JSON values as the ledger takes them: no number that is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _exact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _actor() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
