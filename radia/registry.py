"""MLflow: runs, candidates that wait for a person, and the model in use. The only module that speaks to it.

Two registered models. The pipeline writes `cxr-candidate`; a person who may write `cxr` decides what is in use: its
aliases are `champion` (in use) and `previous` (in use before). A version's tags `snapshot`, `checkpoint`, `metrics` and
`decision` are digests of its evidence; `record_digest` covers everything that MLflow keeps of it, so that a metric, a
tag or an artefact changed afterwards is found out. Importing MLflow takes seconds: it happens inside functions.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from radia import digests
from radia.errors import PromotionRefused, RegistryError
from radia.ledger import code_version
from radia.settings import mlflow_url, quiet_dependencies
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

MODEL, CANDIDATE = "cxr", "cxr-candidate"
CHAMPION, PREVIOUS = "champion", "previous"
CHAMPION_URI = f"mlflow:{MODEL}@{CHAMPION}"
EXPERIMENT = "radia"
TRAINING = "training"
"""The tag of a run that a training is told to: what decides the training's outcome."""

EVIDENCE = ("snapshot", "checkpoint", "metrics")
"""Tags that together tell one candidate from another: the same three are never registered twice."""

PERSONS_TAGS = frozenset({"approval", "approver", "reason", "override", "acted", "refused", "promoted", "withdrawn"})
"""Tags that people and promotions set after registration; the record's digest leaves them out."""

NOTE = "\n\n---\n**Note, added afterwards.** "
"""What begins a note on a card; the record's digest covers the card up to there."""


CARD_LETTERS, CARD_ROOM = 3900, 5000
"""What stands of a card on its version, and what MLflow's PostgreSQL takes: the rest is for words before it and notes.

SQLite takes any length, a server refuses the whole registration.
"""

REST_OF_CARD = "\n\n… The whole card is the artefact `model_card.md` of this version's run."

OVERRIDE_LETTERS = 500

AGAINST_THE_GATE = "🔴 **Approved against the gate.**"
"""What the card of a model in use begins with where a person overrode the gate."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as MLflow knows it."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str] = field(repr=False)
    aliases: tuple[str, ...]
    created: str
    card: str = field(repr=False)
    source: str = field(repr=False)

    @property
    def uri(self) -> str:
        """`mlflow:<name>/<version>`, as `finetune.base` and `checkpoint_folder` take it."""
        return f"mlflow:{self.name}/{self.version}"


@dataclass(frozen=True)
class Candidate:
    """A registered candidate. `record`: the digest of all that MLflow keeps of it. `new`: not registered before."""

    version: str
    run_id: str
    uri: str
    record: str
    new: bool


@dataclass(frozen=True)
class Training:
    """What MLflow shows of a training: metrics as (name, value, step), and files (under `training/`) by name.

    run_id: of `open_training`; empty where MLflow could not be reached then.
    """

    run_id: str
    metrics: tuple[tuple[str, float, int], ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Approval:
    """What a person decided in MLflow about a candidate, by its tags or by copying it to `cxr`, and nobody acted on.

    verdict: `approved`, `rejected`, or whatever else the tag says, which nobody can act on.
    """

    candidate: Version
    verdict: str
    approver: str
    reason: str
    override: str
    copy: Version | None = None

    @property
    def key(self) -> str:
        """Changes when the person changes the decision."""
        return digests.of_json([self.verdict, self.approver, self.reason, self.override])[:16]


@dataclass(frozen=True)
class Evidence:
    """What a candidate was judged by, as MLflow keeps it, found to be what was registered."""

    evaluation: dict[str, Any]
    decision: dict[str, Any]


@dataclass(frozen=True)
class Promotion:
    """A change of the model in use. `previous`: what was in use before. `new`: whether it was not in use already."""

    version: Version
    candidate: str
    previous: Version | None
    new: bool


# --- writing --------------------------------------------------------------------------------------------------------


def register_champion(
    site: Workspace, checkpoint: Path, description: str, tags: Mapping[str, str] | None = None
) -> Version:
    """Registers the first base model in `cxr` and puts it in use. The same checkpoint twice is one version.

    checkpoint: a folder that `radia.model.save_checkpoint` wrote. Raises RegistryError, also where a model is in use.
    """
    digest = digests.of_folder(checkpoint)
    with _registry(site) as client:
        same = [known for known in _versions(client, MODEL) if known.tags.get("checkpoint") == digest]
        if not same:
            if (used := _by_alias(client, MODEL, CHAMPION)) is not None:
                raise RegistryError(f"{used.uri} is in use: a new base comes in as a candidate that a person approves")
            facts = {"checkpoint": digest, "commit": code_version(), "kind": "base", **(tags or {})}
            run = _start_run(client, site, "base model", facts)
            source = _log_model(client, run, checkpoint, example=None)
            client.set_terminated(run.info.run_id)
            same = [_register(client, MODEL, source, run, facts, description)]
        if _by_alias(client, MODEL, CHAMPION) is None:
            client.set_registered_model_alias(MODEL, CHAMPION, same[0].version)
        return _version(client, MODEL, same[0].version)


def log_candidate(
    site: Workspace,
    *,
    run_name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    artifacts: Sequence[Path],
    checkpoint: Path,
    tags: Mapping[str, str],
    card: str,
    input_example: NDArray[np.uint8] | None = None,
    training: Training | None = None,
) -> Candidate:
    """Logs one retraining as a run and registers its model in `cxr-candidate`, waiting for approval.

    training: what MLflow was told while the model was trained; the run is then that one, and what it lacks is added.

    artifacts: files and folders, each kept under its own name. tags: at least `snapshot`, `checkpoint` and `metrics`
    (digests), `gate` (the decision in a word) where there is one, and `dvc` for the dataset input. card: Markdown.
    input_example: uint8 [n, rows, columns]; only the first image is kept.

    The same evidence is registered once: a second call, or a call after one that was killed, ends in the same version.
    Raises RegistryError.
    """
    if missing := [name for name in EVIDENCE if not tags.get(name)]:
        raise RegistryError(f"a candidate needs the digests of its evidence as tags; missing: {', '.join(missing)}")
    facts = {"commit": code_version(), **{name: str(value) for name, value in tags.items()}}
    with _registry(site) as client:
        for known in _versions(client, CANDIDATE):
            if all(known.tags.get(name) == facts[name] for name in EVIDENCE):
                return _candidate(client, site, known, new=False)
        _end_killed_runs(client, facts)
        run = _run_of(client, site, training, run_name, facts)
        _log_values(client, run, params, metrics)
        _log_dataset(client, run, facts)
        with TemporaryDirectory() as folder:
            (Path(folder) / "model_card.md").write_text(card, encoding="utf-8")
            _log_files(client, run, [Path(folder) / "model_card.md", *artifacts])
        source = _log_model(client, run, checkpoint, example=input_example)
        client.set_terminated(run.info.run_id)
        registered = _register(client, CANDIDATE, source, run, {**facts, "approval": "pending"}, card)
        return _candidate(client, site, registered, new=True)


def open_training(site: Workspace, run_name: str, key: str) -> str:
    """The run that a training of this key (what decides its outcome) is told to while it goes on; its id.

    The same key gets the same run again after it was killed, unless a candidate was registered from it: what stands
    behind a version does not change. Raises RegistryError.
    """
    with _registry(site) as client:
        same = client.search_runs([_experiment(client, site)], f"tags.{TRAINING} = '{key}'")
        if known := [run for run in same if "checkpoint" not in run.data.tags]:
            client.update_run(known[0].info.run_id, status="RUNNING")
            return str(known[0].info.run_id)
        return str(_start_run(client, site, run_name, {TRAINING: key, "commit": code_version()}).info.run_id)


def tell_training(site: Workspace, training: Training, *, ended: str = "") -> None:
    """Logs a training's metrics and files; what is there already stays as it is. ended: `FINISHED` or `FAILED`.

    Raises RegistryError.
    """
    with _registry(site) as client:
        _tell(client, client.get_run(training.run_id), training)
        if ended:
            client.set_terminated(training.run_id, ended)


def flat_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation that stand well in MLflow's tables, by a name such as `candidate/auroc/mean all`.

    From `models` every value by finding and the means with their limits, from `differences` likewise. What could not be
    computed is left out; subgroups and curves stay in the artefact metrics.json.
    """
    flat = {name: float(evaluation[name]) for name in ("n", "patients") if isinstance(evaluation.get(name), int)}
    parts = {**evaluation.get("models", {}), "difference": evaluation.get("differences", {})}
    for part, table in parts.items():
        for level, prefix in (("findings", ""), ("means", "mean ")):
            for row, figures in table.get(level, {}).items():
                flat |= _figures(f"{part}/{{}}/{prefix}{row}", figures, limits=bool(prefix))
    return flat


def note_on_card(site: Workspace, name: str, version: str, text: str) -> None:
    """Adds a note to a version's card (a withdrawal, for one), once."""
    with _registry(site) as client:
        card = _version(client, name, version).card
        if text not in card:
            client.update_model_version(name, version, description=_noted(card, text))


# --- approval -------------------------------------------------------------------------------------------------------


def approvals(site: Workspace) -> list[Approval]:
    """What people decided about candidates and nobody acted on yet, the oldest candidate first."""
    with _registry(site) as client:
        known = {candidate.version: candidate for candidate in _versions(client, CANDIDATE)}
        copied = {}
        for version in _versions(client, MODEL):
            origin = version.source.removeprefix(f"models:/{CANDIDATE}/")
            if origin in known and "promoted" not in version.tags:
                copied[origin] = version
        found = [_approval(candidate, copied.get(number)) for number, candidate in known.items()]
        waiting = [approval for approval in found if _undone(approval)]
        return sorted(waiting, key=lambda approval: int(approval.candidate.version))


def approval_of(site: Workspace, version: str) -> Approval:
    """The decision about one candidate as its tags have it. Raises RegistryError."""
    return _approval(find(site, f"{CANDIDATE}/{version}"), None)


def evidence(site: Workspace, candidate: Version) -> Evidence:
    """The evaluation and the decision that MLflow keeps of a candidate.

    Raises PromotionRefused where they, or the model's files, are not those whose digests were registered.
    """
    with _registry(site) as client:
        values = {}
        for name in ("metrics", "decision"):
            text = _kept_file(client, site, candidate, f"evaluation/{name}.json")
            if hashlib.sha256(text).hexdigest() != candidate.tags.get(name):
                raise PromotionRefused(f"{name}.json of {candidate.uri} was changed after it was registered")
            values[name] = json.loads(text)
        folder = _checkpoint(_model_folder(client, site, candidate))
        if digests.of_folder(folder) != candidate.tags.get("checkpoint"):
            raise PromotionRefused(f"the checkpoint of {candidate.uri} was changed after it was registered")
        return Evidence(values["metrics"], values["decision"])


def put_in_use(site: Workspace, approval: Approval) -> Promotion:
    """Copies an approved candidate to `cxr` and gives it the alias `champion`; the former one becomes `previous`.

    Judges nothing: `radia.approval` does. A call that was killed is finished by the next one. Raises RegistryError, for
    one where this account may not write `cxr`.
    """
    candidate = approval.candidate
    facts = {"approval": "approved", "approver": approval.approver, "reason": approval.reason}
    facts |= {"override": approval.override} if approval.override else {}
    facts |= {"promoted": f"{CANDIDATE}/{candidate.version}"}
    with _registry(site) as client:
        used = _by_alias(client, MODEL, CHAMPION)
        version = approval.copy or next(
            (v for v in _versions(client, MODEL) if v.source == f"models:/{CANDIDATE}/{candidate.version}"), None
        )
        if version is None:
            version = _copy(client, candidate, facts)
        for name, value in facts.items():
            if version.tags.get(name) != value:
                client.set_model_version_tag(MODEL, version.version, name, value)
        if (card := _card_in_use(version.card, approval)) != version.card:
            client.update_model_version(MODEL, version.version, description=card)
        new = used is None or used.version != version.version
        if new:
            if used is not None:
                client.set_registered_model_alias(MODEL, PREVIOUS, used.version)
            client.set_registered_model_alias(MODEL, CHAMPION, version.version)
        previous = used if new else _by_alias(client, MODEL, PREVIOUS)
        return Promotion(_version(client, MODEL, version.version), candidate.version, previous, new)


def mark_acted(site: Workspace, approval: Approval, *, refused: str = "") -> None:
    """Notes on a candidate that its decision was acted on, and why it was refused where it was."""
    with _registry(site) as client:
        facts = {"approval": approval.verdict, "approver": approval.approver, "reason": approval.reason}
        _mark(client, approval, {**facts, **({"refused": refused} if refused else {})})


def roll_back(site: Workspace) -> Promotion:
    """Puts the previous model in use again; the one in use becomes `previous`. Raises RegistryError."""
    with _registry(site) as client:
        used, previous = _by_alias(client, MODEL, CHAMPION), _by_alias(client, MODEL, PREVIOUS)
        if previous is None:
            raise RegistryError("there is no previous model to go back to")
        client.set_registered_model_alias(MODEL, CHAMPION, previous.version)
        if used is not None:
            client.set_registered_model_alias(MODEL, PREVIOUS, used.version)
        return Promotion(_version(client, MODEL, previous.version), previous.tags.get("promoted", ""), used, True)


# --- reading --------------------------------------------------------------------------------------------------------


def champion(site: Workspace) -> Version | None:
    """The model in use."""
    with _registry(site) as client:
        return _by_alias(client, MODEL, CHAMPION)


def candidates(site: Workspace) -> list[Version]:
    """All candidates, the newest first."""
    return versions(site, CANDIDATE)


def versions(site: Workspace, name: str) -> list[Version]:
    """All versions of a registered model, the newest first."""
    with _registry(site) as client:
        return _versions(client, name)


def find(site: Workspace, model: str) -> Version:
    """The version of `cxr@champion`, `cxr/2`, `cxr-candidate/3`, or `3` alone (a candidate). Raises RegistryError."""
    with _registry(site) as client:
        return _find(client, model)


def has(site: Workspace, uri: str) -> bool:
    """Whether an alias such as `mlflow:cxr@previous` stands for a version."""
    name, _, alias = uri.removeprefix("mlflow:").partition("@")
    with _registry(site) as client:
        return alias in _aliases(client, name)


def checkpoint_folder(site: Workspace, uri: str) -> Path:
    """The checkpoint's folder of `mlflow:cxr@champion` or `mlflow:cxr-candidate/3`: where MLflow keeps it, or a copy.

    A copy from a server is kept under `models/registry/` and made once. Raises RegistryError.
    """
    if not uri.startswith("mlflow:"):
        raise RegistryError(
            f"{uri!r} does not name a registered model: expected mlflow:<model>@<alias> or <model>/<version>"
        )
    with _registry(site) as client:
        found = _find(client, uri.removeprefix("mlflow:"))
        return _checkpoint(_model_folder(client, site, found))


def artefact(site: Workspace, version: Version, name: str) -> bytes:
    """A file of the run behind a version, such as `evaluation/metrics.json`. Raises RegistryError where it has none."""
    with _registry(site) as client:
        return _kept_file(client, site, version, name)


def record_digest(site: Workspace, name: str, version: str) -> str:
    """SHA-256 over all that MLflow keeps of a version: params, metrics, tags, card, artefacts, model, by content.

    What people set later (`PERSONS_TAGS`, notes on the card, aliases) is left out. Raises RegistryError.
    """
    with _registry(site) as client:
        return _record(client, site, _version(client, name, version))


def is_changed_copy(version: Version, candidate: Version) -> bool:
    """Whether a version of `cxr` says something else than the candidate that it was copied from.

    Tags that people set, notes on cards and the words about an override at a card's beginning are left out.
    """

    def plain(one: Version) -> tuple[dict[str, str], str]:
        tags = {name: value for name, value in one.tags.items() if name not in PERSONS_TAGS}
        card = one.card.partition(NOTE)[0]
        if card.startswith(AGAINST_THE_GATE):
            card = card.partition("\n\n")[2]
        return tags, card.removesuffix(REST_OF_CARD)

    (tags, card), (meant, original) = plain(version), plain(candidate)
    shortened = version.card.partition(NOTE)[0].endswith(REST_OF_CARD)  # less of it fits below the words of an override
    return tags != meant or not (original.startswith(card) if shortened else card == original)


# --- the parts of a run ---------------------------------------------------------------------------------------------


def _run_of(
    client: MlflowClient, site: Workspace, training: Training | None, name: str, facts: Mapping[str, str]
) -> Run:
    """The training's run with these tags, or a new one: where there is none, or a killed registration has used it."""
    from mlflow.exceptions import MlflowException

    run = None
    if training is not None and training.run_id:
        try:
            run = client.get_run(training.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    if run is None or "checkpoint" in run.data.tags:
        run = _start_run(client, site, name, facts)
    else:
        client.update_run(run.info.run_id, status="RUNNING", name=name)
        for tag, value in facts.items():
            client.set_tag(run.info.run_id, tag, value)
    if training is not None:
        _tell(client, run, training)
    return client.get_run(run.info.run_id)


def _tell(client: MlflowClient, run: Run, training: Training) -> None:
    from mlflow.entities import Metric

    # the same time each time: a metric that is there already is then the same row
    figures = [Metric(_legal(name), value, run.info.start_time + step, step) for name, value, step in training.metrics]
    for start in range(0, len(figures), 1000):
        client.log_batch(run.info.run_id, metrics=figures[start : start + 1000])
    with TemporaryDirectory() as folder:
        for name, content in training.files.items():
            (Path(folder) / name).write_bytes(content)
            client.log_artifact(run.info.run_id, str(Path(folder) / name), "training")


def _start_run(client: MlflowClient, site: Workspace, name: str, tags: Mapping[str, str]) -> Run:
    return client.create_run(_experiment(client, site), run_name=name, tags=dict(tags))


def _experiment(client: MlflowClient, site: Workspace) -> str:
    """The experiment's id. Its artefacts lie in the data folder, unless a server decides where."""
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    local = not mlflow_url(site).startswith("http")
    location = (site.mlflow_artifacts.resolve() / EXPERIMENT).as_uri() if local else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _end_killed_runs(client: MlflowClient, facts: Mapping[str, str]) -> None:
    """Marks what an earlier, killed call for the same evidence left running."""
    if (experiment := client.get_experiment_by_name(EXPERIMENT)) is None:
        return
    same = " and ".join(f"tags.{name} = '{facts[name]}'" for name in EVIDENCE)
    for run in client.search_runs([experiment.experiment_id], f"{same} and attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")


def _log_values(client: MlflowClient, run: Run, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = run.info.start_time
    rows = [Param(_legal(name), str(value)[:6000]) for name, value in params.items()]
    figures = [Metric(_legal(name), float(value), now, 0) for name, value in metrics.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run.info.run_id, params=rows[start : start + 100])
    for start in range(0, len(figures), 1000):
        client.log_batch(run.info.run_id, metrics=figures[start : start + 1000])


def _log_dataset(client: MlflowClient, run: Run, facts: Mapping[str, str]) -> None:
    """The snapshot as the run's dataset input, found by DVC's digest of it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"snapshot": facts["snapshot"], "dvc": facts.get("dvc", "")})
    digest = facts.get("dvc") or facts["snapshot"][:32]
    dataset = Dataset(name=f"snapshot-{facts['snapshot'][:12]}", digest=digest, source_type="dvc", source=source)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _log_files(client: MlflowClient, run: Run, paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            client.log_artifacts(run.info.run_id, str(path), path.name)
        else:
            client.log_artifact(run.info.run_id, str(path))


def _log_model(client: MlflowClient, run: Run, checkpoint: Path, *, example: NDArray[np.uint8] | None) -> str:
    """Logs the checkpoint as a pyfunc from code; the URI `models:/<id>`.

    By the client's calls and not by `log_model`, which would load torch to guess requirements and to try the example.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id = run.info.run_id
    logged = client.create_logged_model(run.info.experiment_id, "model", source_run_id=run_id, model_type="classifier")
    with TemporaryDirectory() as holder:
        staged = Path(holder) / "checkpoint"
        shutil.copytree(checkpoint, staged)
        with warnings.catch_warnings(record=True):  # it asks for type hints that would change what it serves
            mlflow.pyfunc.save_model(
                str(Path(holder) / "model"),
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"checkpoint": str(staged)},
                signature=_signature(),
                input_example=example[:1] if example is not None else None,
                pip_requirements=_requirements(),
                mlflow_model=Model(model_id=logged.model_id, run_id=run_id, artifact_path=logged.artifact_location),
            )
        client.log_model_artifacts(logged.model_id, str(Path(holder) / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"models:/{logged.model_id}"


def _signature() -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from radia.findings import FINDINGS

    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1), "images")
    probabilities = TensorSpec(np.dtype(np.float32), (-1, len(FINDINGS)), "probabilities")
    return ModelSignature(
        Schema([TensorSpec(images.type, images.shape)]), Schema([TensorSpec(probabilities.type, probabilities.shape)])
    )


def _requirements() -> list[str]:
    return [
        f"{name}=={installed_version(name)}"
        for name in ("mlflow", "numpy", "radia", "safetensors", "torch", "torchvision")
    ]


def _register(client: MlflowClient, name: str, source: str, run: Run, tags: Mapping[str, str], card: str) -> Version:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = source.removeprefix("models:/")
    made = client.create_model_version(
        name, source, run_id=run.info.run_id, tags=dict(tags), description=_shortened(card), model_id=model_id
    )
    return _version(client, name, made.version)


def _candidate(client: MlflowClient, site: Workspace, known: Version, *, new: bool) -> Candidate:
    return Candidate(known.version, known.run_id, known.uri, _record(client, site, known), new)


# --- the parts of an approval ---------------------------------------------------------------------------------------


def _approval(candidate: Version, copy: Version | None) -> Approval:
    said = candidate.tags
    verdict = said.get("approval", "pending").strip().lower()
    if copy is not None and verdict == "pending":
        verdict, said = "approved", {"reason": f"copied to {MODEL} by hand", **copy.tags}
    return Approval(
        candidate=candidate,
        verdict=verdict,
        approver=said.get("approver", "").strip(),
        reason=said.get("reason", "").strip(),
        override=said.get("override", "").strip(),
        copy=copy,
    )


def _undone(approval: Approval) -> bool:
    return approval.verdict != "pending" and approval.candidate.tags.get("acted") != approval.key


def _mark(client: MlflowClient, approval: Approval, facts: Mapping[str, str]) -> None:
    number = approval.candidate.version
    for name, value in {**facts, "acted": approval.key}.items():
        if approval.candidate.tags.get(name) != value and value:
            client.set_model_version_tag(CANDIDATE, number, name, value[:5000])
    if "refused" in approval.candidate.tags and "refused" not in facts:
        client.delete_model_version_tag(CANDIDATE, number, "refused")


def _copy(client: MlflowClient, candidate: Version, facts: Mapping[str, str]) -> Version:
    """A version of `cxr` with the candidate's model, evidence and card. In one write: it is whole, or not there."""
    made = client.create_model_version(
        MODEL,
        f"models:/{CANDIDATE}/{candidate.version}",
        run_id=candidate.run_id,
        tags={**{name: value for name, value in candidate.tags.items() if name not in PERSONS_TAGS}, **facts},
        description=candidate.card,
        model_id=client.get_model_version(CANDIDATE, candidate.version).model_id,
    )
    return _version(client, MODEL, made.version)


def _card_in_use(card: str, approval: Approval) -> str:
    """The card with, as its first words, who overrode the gate and why; without them where nobody did."""
    _, opened, rest = card.partition(AGAINST_THE_GATE)
    plain = rest.partition("\n\n")[2] if opened else card
    if not approval.override:
        return plain
    said = " ".join(approval.override.split())
    return f"{AGAINST_THE_GATE} {approval.approver}: {said[:OVERRIDE_LETTERS]}\n\n{plain}"


def _shortened(card: str) -> str:
    """What stands of a card on its version: all of it, or as many lines as fit and where the rest is."""
    if len(card) <= CARD_LETTERS:
        return card
    lines = card[: CARD_LETTERS - len(REST_OF_CARD)]
    return lines[: lines.rfind("\n")].rstrip() + REST_OF_CARD


def _noted(card: str, text: str) -> str:
    """The card with one more note; where there is no room, older notes give way: the ledger has them all."""
    plain, *notes = card.split(NOTE)
    notes.append(text[: max(0, CARD_ROOM - len(plain) - len(NOTE))])
    while len(notes) > 1 and len(NOTE.join([plain, *notes])) > CARD_ROOM:
        notes.pop(0)
    return NOTE.join([plain, *notes])


def _kept_file(client: MlflowClient, site: Workspace, candidate: Version, name: str) -> bytes:
    root = _local(site, client.get_run(candidate.run_id).info.artifact_uri)
    if root is not None:
        if not (root / name).is_file():
            raise PromotionRefused(f"{candidate.uri} has no {name}: it was registered without evidence")
        return (root / name).read_bytes()
    with TemporaryDirectory() as holder:
        return Path(client.download_artifacts(candidate.run_id, name, holder)).read_bytes()


@contextmanager
def one_at_a_time(site: Workspace) -> Iterator[None]:
    """Holds the model in use still: two promotions on this machine do not cross."""
    site.root.mkdir(parents=True, exist_ok=True)
    with (site.root / ".promotion.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- the parts of the registry --------------------------------------------------------------------------------------


def _versions(client: MlflowClient, name: str) -> list[Version]:
    aliases = _aliases(client, name)
    found: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=1000, page_token=token)
        found += [_from_mlflow(entry, aliases) for entry in page]
        if not (token := page.token):
            return sorted(found, key=lambda known: int(known.version), reverse=True)


def _version(client: MlflowClient, name: str, version: str) -> Version:
    return _from_mlflow(client.get_model_version(name, str(version)), _aliases(client, name))


def _by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    version = _aliases(client, name).get(alias)
    return _version(client, name, version) if version is not None else None


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Alias -> version. Read from the registered model: versions that a search returns do not carry them."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _from_mlflow(entry: ModelVersion, aliases: Mapping[str, str]) -> Version:
    return Version(
        name=entry.name,
        version=str(entry.version),
        run_id=entry.run_id or "",
        tags=dict(entry.tags),
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == str(entry.version))),
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        card=entry.description or "",
        source=entry.source or "",
    )


def _find(client: MlflowClient, model: str) -> Version:
    if not (match := re.fullmatch(r"(?:(?P<name>[\w-]+)(?:@(?P<alias>[\w-]+)|/(?P<in>\d+)))|(?P<alone>\d+)", model)):
        raise RegistryError(f"{model!r} names no model: expected <model>@<alias>, <model>/<version> or a version")
    name = match["name"] or CANDIDATE
    version = match["in"] or match["alone"] or _aliases(client, name).get(match["alias"] or "")
    known = {entry.version: entry for entry in _versions(client, name)}
    if version not in known:
        have = f"it has {', '.join(sorted(known, key=int))}" if known else "there is none of that name"
        raise RegistryError(f"no version of {name} is {match['alias'] or version}: {have}")
    return known[version]


def _model_folder(client: MlflowClient, site: Workspace, found: Version) -> Path:
    """The folder of a version's model: MLflow's own where it is on this machine, else a copy."""
    import mlflow.artifacts

    location = client.get_model_version_download_uri(found.name, found.version)
    if match := re.fullmatch(r"models:/(m-[0-9a-f]+)", location):
        location = client.get_logged_model(match[1]).artifact_location
    if (folder := _local(site, location)) is not None:
        return folder
    kept = site.models / "registry" / digests.of_json([mlflow_url(site), found.name, found.version, found.created])[:24]
    if not kept.is_dir():
        with written_whole(kept) as partial:
            partial.mkdir()
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{found.name}/{found.version}", dst_path=str(partial)
            )
    return kept


def _local(site: Workspace, location: str) -> Path | None:
    """A location on this machine, also after the data folder was moved; None for one on a server."""
    parsed = urlparse(location)
    if parsed.scheme not in ("", "file"):
        return None
    folder = Path(unquote(parsed.path))
    if folder.exists():
        return folder
    _, _, below = folder.as_posix().partition(f"/{site.mlflow_artifacts.name}/")
    moved = site.mlflow_artifacts / below
    if below and moved.exists():
        return moved
    raise RegistryError("the artefacts of this model are gone from the folder where MLflow put them")


def _checkpoint(folder: Path) -> Path:
    found = sorted(folder.glob("artifacts/*/model.safetensors"))
    if len(found) != 1:
        raise RegistryError(f"the model holds {len(found)} checkpoints: expected one")
    return found[0].parent


def _record(client: MlflowClient, site: Workspace, known: Version) -> str:
    run = client.get_run(known.run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    own = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    values = {
        "model": known.name,
        "source": known.source,
        "tags": {name: value for name, value in known.tags.items() if name not in PERSONS_TAGS},
        "card": known.card.partition(NOTE)[0],
        "run": {
            "id": run.info.run_id,
            "status": run.info.status,
            "params": dict(run.data.params),
            "metrics": {name: repr(float(value)) for name, value in run.data.metrics.items()},
            "tags": {name: value for name, value in own.items() if name not in PERSONS_TAGS},
            "inputs": [[entry.dataset.name, entry.dataset.digest, entry.dataset.source] for entry in inputs],
        },
        "artifacts": _artifact_digests(client, site, run),
        "files": _file_digests(_model_folder(client, site, known)),
    }
    return digests.of_json(values)


def _artifact_digests(client: MlflowClient, site: Workspace, run: Run) -> list[list[str]]:
    if not client.list_artifacts(run.info.run_id):
        return []
    if (folder := _local(site, run.info.artifact_uri)) is not None:
        return _file_digests(folder)
    with TemporaryDirectory() as holder:
        return _file_digests(Path(client.download_artifacts(run.info.run_id, "", holder)))


def _file_digests(folder: Path) -> list[list[str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [[path.relative_to(folder).as_posix(), digests.of_file(path)] for path in files]


# --- names and connections ------------------------------------------------------------------------------------------


def _figures(pattern: str, figures: Mapping[str, Any], *, limits: bool) -> dict[str, float]:
    flat: dict[str, float] = {}
    for metric, figure in figures.items():
        if not isinstance(figure, Mapping):
            continue
        for part in ("value", "low", "high") if limits else ("value",):
            if isinstance(figure.get(part), int | float):
                flat[pattern.format(metric) + ("" if part == "value" else f" {part}")] = float(figure[part])
    return flat


def _legal(name: str) -> str:
    """A name that MLflow takes for a param or a metric."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@contextmanager
def _registry(site: Workspace) -> Iterator[MlflowClient]:
    """A client of the site's MLflow, quiet, with its errors as RegistryError."""
    quiet_dependencies()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    url = mlflow_url(site)
    if not url.startswith("http"):
        site.root.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        _make_database(url)
        mlflow.set_tracking_uri(url)  # pyfunc and the artefact functions look there and nowhere else
        yield mlflow.MlflowClient(url)
    except MlflowException as error:
        raise RegistryError(f"MLflow refused: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise RegistryError(f"MLflow's database refused: {type(error).__name__}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # forgets the address
        if before is not None:  # MLflow writes the variable, and another site must not find this one's address there
            os.environ["MLFLOW_TRACKING_URI"] = before


def _make_database(url: str) -> None:
    """Makes a SQLite database that is not there yet whole or not at all: a run killed meanwhile leaves none.

    One of an older schema is refused: MLflow's client would migrate it as it comes, with nothing kept of it.
    """
    from mlflow import MlflowClient

    from radia.operations.sqlite_whole import revision

    if not url.startswith("sqlite:///"):
        return
    if (path := Path(url.removeprefix("sqlite:///"))).exists():
        found = revision(path, "alembic_version")
        if found and found != (wanted := _newest_schema()):
            raise RegistryError(f"MLflow's database is at revision {found}, not {wanted}: run `radia migrate`")
        return
    with written_whole(path) as partial:
        MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)


@cache
def _newest_schema() -> str:
    from radia.operations.schema import known

    return known("MLflow", "").wanted


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
