"""Runs: what MLflow is told of a training while it goes on, and the parts that a run is made of.

Figures, parameters, files and the dataset of a run. Making a version of it is `registering`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from radia.ledger import code_version
from radia.registry import connection
from radia.registry.names import EVIDENCE
from radia.settings import mlflow_url
from radia.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "radia"

TRAINING = "training"
"""The tag of a run that a training is told to: what decides the training's outcome."""


@dataclass(frozen=True)
class Training:
    """What MLflow shows of a training: metrics as (name, value, step), and files (under `training/`) by name.

    run_id: of `open_training`; empty where MLflow could not be reached then.
    """

    run_id: str
    metrics: tuple[tuple[str, float, int], ...]
    files: Mapping[str, bytes]


def open_training(site: Workspace, run_name: str, key: str) -> str:
    """The run that a training of this key (what decides its outcome) is told to while it goes on; its id.

    The same key gets the same run again after it was killed, unless a candidate was registered from it: what stands
    behind a version does not change. Raises RegistryError.
    """
    with connection.client(site) as client:
        same = client.search_runs([experiment(client, site)], f"tags.{TRAINING} = '{key}'")
        if known := [run for run in same if "checkpoint" not in run.data.tags]:
            client.update_run(known[0].info.run_id, status="RUNNING")
            return str(known[0].info.run_id)
        return str(start_run(client, site, run_name, {TRAINING: key, "commit": code_version()}).info.run_id)


def tell_training(site: Workspace, training: Training, *, ended: str = "") -> None:
    """Logs a training's metrics and files; what is there already stays as it is. ended: `FINISHED` or `FAILED`.

    Raises RegistryError.
    """
    with connection.client(site) as client:
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


def run_of(
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
        run = start_run(client, site, name, facts)
    else:
        client.update_run(run.info.run_id, status="RUNNING", name=name)
        for tag, value in facts.items():
            client.set_tag(run.info.run_id, tag, value)
    if training is not None:
        _tell(client, run, training)
    return client.get_run(run.info.run_id)


def start_run(client: MlflowClient, site: Workspace, name: str, tags: Mapping[str, str]) -> Run:
    """A new run of the experiment, marked as running."""
    return client.create_run(experiment(client, site), run_name=name, tags=dict(tags))


def experiment(client: MlflowClient, site: Workspace) -> str:
    """The experiment's id. Its artefacts lie in the data folder, unless a server decides where."""
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    local = not mlflow_url(site).startswith("http")
    location = (site.mlflow_artifacts.resolve() / EXPERIMENT).as_uri() if local else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def end_killed_runs(client: MlflowClient, facts: Mapping[str, str]) -> None:
    """Marks what an earlier, killed call for the same evidence left running."""
    if (known := client.get_experiment_by_name(EXPERIMENT)) is None:
        return
    same = " and ".join(f"tags.{name} = '{facts[name]}'" for name in EVIDENCE)
    for run in client.search_runs([known.experiment_id], f"{same} and attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")


def log_values(client: MlflowClient, run: Run, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Params and metrics, in batches of the size that MLflow takes, under names that it takes."""
    from mlflow.entities import Metric, Param

    now = run.info.start_time
    rows = [Param(_legal(name), str(value)[:6000]) for name, value in params.items()]
    figures = [Metric(_legal(name), float(value), now, 0) for name, value in metrics.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run.info.run_id, params=rows[start : start + 100])
    for start in range(0, len(figures), 1000):
        client.log_batch(run.info.run_id, metrics=figures[start : start + 1000])


def log_dataset(client: MlflowClient, run: Run, facts: Mapping[str, str]) -> None:
    """The snapshot as the run's dataset input, found by DVC's digest of it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"snapshot": facts["snapshot"], "dvc": facts.get("dvc", "")})
    digest = facts.get("dvc") or facts["snapshot"][:32]
    dataset = Dataset(name=f"snapshot-{facts['snapshot'][:12]}", digest=digest, source_type="dvc", source=source)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def log_files(client: MlflowClient, run: Run, paths: Sequence[Path]) -> None:
    """Files and folders, each kept under its own name."""
    for path in paths:
        if path.is_dir():
            client.log_artifacts(run.info.run_id, str(path), path.name)
        else:
            client.log_artifact(run.info.run_id, str(path))


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
