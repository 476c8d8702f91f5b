"""What the registered models, their aliases and their versions are called, and which versions there are.

Two registered models: candidates wait in one, and what is and was in use are versions of the other. What stands behind
a version (its files, its evidence) is not read here, and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from radia.errors import RegistryError
from radia.registry import connection
from radia.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL, CANDIDATE = "cxr", "cxr-candidate"
CHAMPION, PREVIOUS = "champion", "previous"
CHAMPION_URI = f"mlflow:{MODEL}@{CHAMPION}"

EVIDENCE = ("snapshot", "checkpoint", "metrics")
"""Tags that together tell one candidate from another: the same three are never registered twice."""

PERSONS_TAGS = frozenset({"approval", "approver", "reason", "override", "acted", "refused", "promoted", "withdrawn"})
"""Tags that people and promotions set after registration; the record's digest leaves them out."""


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


def champion(site: Workspace) -> Version | None:
    """The model in use."""
    with connection.client(site) as client:
        return by_alias(client, MODEL, CHAMPION)


def candidates(site: Workspace) -> list[Version]:
    """All candidates, the newest first."""
    return versions(site, CANDIDATE)


def versions(site: Workspace, name: str) -> list[Version]:
    """All versions of a registered model, the newest first."""
    with connection.client(site) as client:
        return versions_of(client, name)


def find(site: Workspace, model: str) -> Version:
    """The version of `cxr@champion`, `cxr/2`, `cxr-candidate/3`, or `3` alone (a candidate). Raises RegistryError."""
    with connection.client(site) as client:
        return named(client, model)


def has(site: Workspace, uri: str) -> bool:
    """Whether an alias such as `mlflow:cxr@previous` stands for a version."""
    name, _, alias = uri.removeprefix("mlflow:").partition("@")
    with connection.client(site) as client:
        return alias in _aliases(client, name)


def versions_of(client: MlflowClient, name: str) -> list[Version]:
    """All versions of a registered model, the newest first."""
    aliases = _aliases(client, name)
    found: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=1000, page_token=token)
        found += [_from_mlflow(entry, aliases) for entry in page]
        if not (token := page.token):
            return sorted(found, key=lambda known: int(known.version), reverse=True)


def version_of(client: MlflowClient, name: str, version: str) -> Version:
    """One version by its number, with the aliases that it has now."""
    return _from_mlflow(client.get_model_version(name, str(version)), _aliases(client, name))


def by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    """The version that an alias stands for."""
    version = _aliases(client, name).get(alias)
    return version_of(client, name, version) if version is not None else None


def named(client: MlflowClient, model: str) -> Version:
    """The version of a name as `find` takes it. Raises RegistryError, saying what there is instead."""
    if not (match := re.fullmatch(r"(?:(?P<name>[\w-]+)(?:@(?P<alias>[\w-]+)|/(?P<in>\d+)))|(?P<alone>\d+)", model)):
        raise RegistryError(f"{model!r} names no model: expected <model>@<alias>, <model>/<version> or a version")
    name = match["name"] or CANDIDATE
    version = match["in"] or match["alone"] or _aliases(client, name).get(match["alias"] or "")
    known = {entry.version: entry for entry in versions_of(client, name)}
    if version not in known:
        have = f"it has {', '.join(sorted(known, key=int))}" if known else "there is none of that name"
        raise RegistryError(f"no version of {name} is {match['alias'] or version}: {have}")
    return known[version]


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
