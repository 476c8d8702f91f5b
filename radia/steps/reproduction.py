"""Bringing back what a model was made from, and making it again from that."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from radia import digests
from radia.errors import NotReproducible
from radia.ledger import Action
from radia.settings import Settings, load_settings
from radia.steps.run import Run
from radia.steps.training import JUDGED_BY
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    from radia.ledger import Event

TOLERANCE = 0.005
"""How far a metric may lie from the recorded one where the weights are not bit-exact (GPU kernels, other hardware)."""


@dataclass(frozen=True)
class Restored:
    """A model's material in a data folder of its own: the snapshot's archive, the base's checkpoint, the settings."""

    model: str
    snapshot: str
    folder: Path
    images: int
    base: str


@dataclass(frozen=True)
class Reproduced:
    """A model made again. difference: the largest of a metric from the recorded one; 0 where weights are bit-exact."""

    model: str
    folder: Path
    exact: bool
    difference: float

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self) | {"folder": str(self.folder)}


def restore(run: Run, model: str, target: Path) -> Restored:
    """Writes what a registered model was trained and judged on below `target`, a new data folder.

    There: `archive/` (the exact snapshot and its shards, from DVC), `models/base`, `params.yaml`, and the reads and
    probabilities that were used. Raises UnknownId, RegistryError, SnapshotError; NotReproducible where a part is gone
    or is not the recorded one, or where the folder is in use.
    """
    from radia import snapshot
    from radia.trace import events_behind

    if target.exists() and any(target.iterdir()):
        raise NotReproducible(f"{target} is not empty: expected a new folder")
    events = {event.action: event for event in events_behind(run.ledger, model)}
    trained, judged = events.get(Action.FINETUNE), events.get(Action.EVALUATE)
    if trained is None or judged is None:
        raise NotReproducible(f"the ledger holds no training and evaluation of {model}: it cannot be made again")
    digest, site = trained.inputs["snapshot"], Workspace(target)
    settings = _recorded_settings(run, model, trained)
    snapshot.restore(run.workspace.archive, digest, site.archive)
    base = _recorded_base(run, trained.inputs["base"])
    shutil.copytree(base, site.models / "base")
    _bring(run, model, judged.inputs.get("reads"), site.gold_reads)
    _bring(run, model, trained.inputs.get("present"), site.suspects / "present.parquet")
    _bring(run, model, trained.inputs.get("judge"), site.models / JUDGED_BY)
    (target / "params.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    with written_whole(site.current_snapshot) as partial:
        partial.write_text(json.dumps({"snapshot": digest}) + "\n")
    return Restored(model, digest, target, len(snapshot.load(site.snapshots, digest).images), trained.inputs["base"])


def reproduce(run: Run, model: str, target: Path) -> Reproduced:
    """Trains and judges a registered model again below `target`, and holds both to what the ledger recorded.

    A folder that `restore` filled for this purpose, or a run that was killed, is gone on with. On the hardware that
    trained it the weights must be the same to the bit; elsewhere every metric must lie within TOLERANCE. Raises
    NotReproducible where it does not, besides what `restore` raises.
    """
    from radia.steps.models import evaluate
    from radia.steps.training import finetune
    from radia.trace import events_behind

    site = Workspace(target)
    if not site.current_snapshot.is_file():
        restore(run, model, target)
    again = replace(run, workspace=site, settings=load_settings(target / "params.yaml"))
    recorded = {event.action: event for event in events_behind(run.ledger, model)}
    exact = finetune(again, tell=False).outputs["checkpoint"] == recorded[Action.FINETUNE].outputs["checkpoint"]
    evaluate(again)
    made = json.loads((site.evaluation / "metrics.json").read_text())
    difference = max(_differences(_recorded_metrics(run, model), made), default=0.0)
    if difference > TOLERANCE:
        raise NotReproducible(
            f"{model} cannot be made again: a metric differs by {difference:.4f} from the recorded one "
            f"(at most {TOLERANCE} is expected); {target} holds what came out"
        )
    return Reproduced(model, target, exact, difference)


def _recorded_settings(run: Run, model: str, trained: Event) -> Settings:
    """The settings that were in force, held to the digests that the training recorded."""
    settings = Settings.model_validate_json(_artefact(run, model, "settings.json"))
    for name in ("finetune", "labels"):
        section = getattr(settings, name)
        if section.digest() != trained.inputs["settings" if name == "finetune" else name]:
            raise NotReproducible(f"the settings that MLflow keeps of {model} are not those of its training ({name})")
    return settings


def _recorded_metrics(run: Run, model: str) -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = json.loads(_artefact(run, model, "metrics.json"))
    return metrics


def _artefact(run: Run, model: str, name: str) -> str:
    from radia import registry

    return registry.artefact(run.workspace, registry.find(run.workspace, model), f"evaluation/{name}").decode()


def _recorded_base(run: Run, digest: str) -> Path:
    """The checkpoint of this digest, from the registry or still in the data folder."""
    from radia import registry

    site = run.workspace
    if (site.models / "base").is_dir() and digests.of_folder(site.models / "base") == digest:
        return site.models / "base"
    for version in (*registry.versions(site, registry.MODEL), *registry.versions(site, registry.CANDIDATE)):
        if version.tags.get("checkpoint") == digest:
            return registry.checkpoint_folder(site, f"mlflow:{version.name}/{version.version}")
    raise NotReproducible(
        f"the base that it was trained from ({digest[:12]}) is neither in the registry nor in the data folder"
    )


def _bring(run: Run, model: str, wanted: str | None, target: Path) -> None:
    """A table that a step used, if it used it, as MLflow keeps it beside the evaluation."""
    if wanted is None:
        return
    from radia import registry

    content = registry.artefact(run.workspace, registry.find(run.workspace, model), f"evaluation/{target.name}")
    if hashlib.sha256(content).hexdigest() != wanted:
        raise NotReproducible(f"what MLflow keeps of {model} as {target.name} is not what was used")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _differences(recorded: Any, made: Any) -> list[float]:
    """The absolute differences of all numbers at the same places. A place on one side only counts as 1."""
    if isinstance(recorded, Mapping) and isinstance(made, Mapping):
        names = {*recorded, *made}
        return [gap for name in names for gap in _differences(recorded.get(name), made.get(name))]
    if isinstance(recorded, list) and isinstance(made, list) and len(recorded) == len(made):
        return [gap for one, other in zip(recorded, made, strict=True) for gap in _differences(one, other)]
    if isinstance(recorded, int | float) and isinstance(made, int | float):
        return [abs(recorded - made)]
    return [] if recorded == made else [1.0]
