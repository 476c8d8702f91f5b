"""New versions: the first base model, and candidates that wait for a person.

A candidate is put in use by `putting_in_use` and never here.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.errors import RegistryError
from radia.ledger import code_version
from radia.registry import connection
from radia.registry.cards import shortened
from radia.registry.names import CANDIDATE, CHAMPION, EVIDENCE, MODEL, Version, by_alias, version_of, versions_of
from radia.registry.records import record
from radia.registry.runs import (
    Training,
    end_killed_runs,
    log_dataset,
    log_files,
    log_values,
    run_of,
    start_run,
)
from radia.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """A registered candidate. `record`: the digest of all that MLflow keeps of it. `new`: not registered before."""

    version: str
    run_id: str
    uri: str
    record: str
    new: bool


def register_champion(
    site: Workspace, checkpoint: Path, description: str, tags: Mapping[str, str] | None = None
) -> Version:
    """Registers the first base model in `cxr` and puts it in use. The same checkpoint twice is one version.

    checkpoint: a folder that `radia.model.save_checkpoint` wrote. Raises RegistryError, also where a model is in use.
    """
    digest = digests.of_folder(checkpoint)
    with connection.client(site) as client:
        same = [known for known in versions_of(client, MODEL) if known.tags.get("checkpoint") == digest]
        if not same:
            if (used := by_alias(client, MODEL, CHAMPION)) is not None:
                raise RegistryError(f"{used.uri} is in use: a new base comes in as a candidate that a person approves")
            facts = {"checkpoint": digest, "commit": code_version(), "kind": "base", **(tags or {})}
            run = start_run(client, site, "base model", facts)
            source = log_model(client, run, checkpoint, example=None)
            client.set_terminated(run.info.run_id)
            same = [_register(client, MODEL, source, run, facts, description)]
        if by_alias(client, MODEL, CHAMPION) is None:
            client.set_registered_model_alias(MODEL, CHAMPION, same[0].version)
        return version_of(client, MODEL, same[0].version)


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
    with connection.client(site) as client:
        for known in versions_of(client, CANDIDATE):
            if all(known.tags.get(name) == facts[name] for name in EVIDENCE):
                return _candidate(client, site, known, new=False)
        end_killed_runs(client, facts)
        run = run_of(client, site, training, run_name, facts)
        log_values(client, run, params, metrics)
        log_dataset(client, run, facts)
        with TemporaryDirectory() as folder:
            (Path(folder) / "model_card.md").write_text(card, encoding="utf-8")
            log_files(client, run, [Path(folder) / "model_card.md", *artifacts])
        source = log_model(client, run, checkpoint, example=input_example)
        client.set_terminated(run.info.run_id)
        registered = _register(client, CANDIDATE, source, run, {**facts, "approval": "pending"}, card)
        return _candidate(client, site, registered, new=True)


def log_model(client: MlflowClient, run: Run, checkpoint: Path, *, example: NDArray[np.uint8] | None) -> str:
    """Logs the checkpoint as a pyfunc from code; the URI `models:/<id>`.

    By the client's calls and not by `mlflow.pyfunc.log_model`, which would load torch to guess requirements and to try
    the example.
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
                python_model=str(Path(__file__).parents[1] / "served_model.py"),
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
        name, source, run_id=run.info.run_id, tags=dict(tags), description=shortened(card), model_id=model_id
    )
    return version_of(client, name, made.version)


def _candidate(client: MlflowClient, site: Workspace, known: Version, *, new: bool) -> Candidate:
    return Candidate(known.version, known.run_id, known.uri, record(client, site, known), new)
