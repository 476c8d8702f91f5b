"""What stands behind a version: its checkpoint, the files of its run, its evidence, and the digest of all of it.

Read only, and each file compared with the digest that was registered where one was. Judging the evidence is
`radia.approval`'s.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from radia import digests
from radia.errors import PromotionRefused, RegistryError
from radia.registry import connection
from radia.registry.cards import AGAINST_THE_GATE, NOTE, REST_OF_CARD
from radia.registry.names import PERSONS_TAGS, Version, named, version_of
from radia.settings import mlflow_url
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Evidence:
    """What a candidate was judged by, as MLflow keeps it, found to be what was registered."""

    evaluation: dict[str, Any]
    decision: dict[str, Any]


def checkpoint_folder(site: Workspace, uri: str) -> Path:
    """The checkpoint's folder of `mlflow:cxr@champion` or `mlflow:cxr-candidate/3`: where MLflow keeps it, or a copy.

    A copy from a server is kept under `models/registry/` and made once. Raises RegistryError.
    """
    if not uri.startswith("mlflow:"):
        raise RegistryError(
            f"{uri!r} does not name a registered model: expected mlflow:<model>@<alias> or <model>/<version>"
        )
    with connection.client(site) as client:
        found = named(client, uri.removeprefix("mlflow:"))
        return _checkpoint(_model_folder(client, site, found))


def artefact(site: Workspace, version: Version, name: str) -> bytes:
    """A file of the run behind a version, such as `evaluation/metrics.json`. Raises RegistryError where it has none."""
    with connection.client(site) as client:
        return _kept_file(client, site, version, name)


def evidence(site: Workspace, candidate: Version) -> Evidence:
    """The evaluation and the decision that MLflow keeps of a candidate.

    Raises PromotionRefused where they, or the model's files, are not those whose digests were registered.
    """
    with connection.client(site) as client:
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


def record_digest(site: Workspace, name: str, version: str) -> str:
    """SHA-256 over all that MLflow keeps of a version: params, metrics, tags, card, artefacts, model, by content.

    What people set later (`PERSONS_TAGS`, notes on the card, aliases) is left out. Raises RegistryError.
    """
    with connection.client(site) as client:
        return record(client, site, version_of(client, name, version))


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


def record(client: MlflowClient, site: Workspace, known: Version) -> str:
    """See `record_digest`."""
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


def local(site: Workspace, location: str) -> Path | None:
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


def _model_folder(client: MlflowClient, site: Workspace, found: Version) -> Path:
    """The folder of a version's model: MLflow's own where it is on this machine, else a copy."""
    import mlflow.artifacts

    location = client.get_model_version_download_uri(found.name, found.version)
    if match := re.fullmatch(r"models:/(m-[0-9a-f]+)", location):
        location = client.get_logged_model(match[1]).artifact_location
    if (folder := local(site, location)) is not None:
        return folder
    kept = site.models / "registry" / digests.of_json([mlflow_url(site), found.name, found.version, found.created])[:24]
    if not kept.is_dir():
        with written_whole(kept) as partial:
            partial.mkdir()
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{found.name}/{found.version}", dst_path=str(partial)
            )
    return kept


def _checkpoint(folder: Path) -> Path:
    found = sorted(folder.glob("artifacts/*/model.safetensors"))
    if len(found) != 1:
        raise RegistryError(f"the model holds {len(found)} checkpoints: expected one")
    return found[0].parent


def _kept_file(client: MlflowClient, site: Workspace, candidate: Version, name: str) -> bytes:
    root = local(site, client.get_run(candidate.run_id).info.artifact_uri)
    if root is not None:
        if not (root / name).is_file():
            raise PromotionRefused(f"{candidate.uri} has no {name}: it was registered without evidence")
        return (root / name).read_bytes()
    with TemporaryDirectory() as holder:
        return Path(client.download_artifacts(candidate.run_id, name, holder)).read_bytes()


def _artifact_digests(client: MlflowClient, site: Workspace, run: Run) -> list[list[str]]:
    if not client.list_artifacts(run.info.run_id):
        return []
    if (folder := local(site, run.info.artifact_uri)) is not None:
        return _file_digests(folder)
    with TemporaryDirectory() as holder:
        return _file_digests(Path(client.download_artifacts(run.info.run_id, "", holder)))


def _file_digests(folder: Path) -> list[list[str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [[path.relative_to(folder).as_posix(), digests.of_file(path)] for path in files]
