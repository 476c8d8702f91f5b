"""What people decided about candidates, and the change of the model in use that follows from it.

Nothing is judged here: `radia.approval` asks for the evidence (`records`) and the gate before it calls this.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radia import digests
from radia.errors import RegistryError
from radia.registry import connection
from radia.registry.cards import with_override
from radia.registry.names import (
    CANDIDATE,
    CHAMPION,
    MODEL,
    PERSONS_TAGS,
    PREVIOUS,
    Version,
    by_alias,
    find,
    version_of,
    versions_of,
)
from radia.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
class Promotion:
    """A change of the model in use. `previous`: what was in use before. `new`: whether it was not in use already."""

    version: Version
    candidate: str
    previous: Version | None
    new: bool


def approvals(site: Workspace) -> list[Approval]:
    """What people decided about candidates and nobody acted on yet, the oldest candidate first."""
    with connection.client(site) as client:
        known = {candidate.version: candidate for candidate in versions_of(client, CANDIDATE)}
        copied = {}
        for version in versions_of(client, MODEL):
            origin = version.source.removeprefix(f"models:/{CANDIDATE}/")
            if origin in known and "promoted" not in version.tags:
                copied[origin] = version
        found = [_approval(candidate, copied.get(number)) for number, candidate in known.items()]
        waiting = [approval for approval in found if _undone(approval)]
        return sorted(waiting, key=lambda approval: int(approval.candidate.version))


def approval_of(site: Workspace, version: str) -> Approval:
    """The decision about one candidate as its tags have it. Raises RegistryError."""
    return _approval(find(site, f"{CANDIDATE}/{version}"), None)


def put_in_use(site: Workspace, approval: Approval) -> Promotion:
    """Copies an approved candidate to `cxr` and gives it the alias `champion`; the former one becomes `previous`.

    Judges nothing: `radia.approval` does. A call that was killed is finished by the next one. Raises RegistryError, for
    one where this account may not write `cxr`.
    """
    candidate = approval.candidate
    facts = {"approval": "approved", "approver": approval.approver, "reason": approval.reason}
    facts |= {"override": approval.override} if approval.override else {}
    facts |= {"promoted": f"{CANDIDATE}/{candidate.version}"}
    with connection.client(site) as client:
        used = by_alias(client, MODEL, CHAMPION)
        version = approval.copy or next(
            (v for v in versions_of(client, MODEL) if v.source == f"models:/{CANDIDATE}/{candidate.version}"), None
        )
        if version is None:
            version = _copy(client, candidate, facts)
        for name, value in facts.items():
            if version.tags.get(name) != value:
                client.set_model_version_tag(MODEL, version.version, name, value)
        card = with_override(version.card, approver=approval.approver, override=approval.override)
        if card != version.card:
            client.update_model_version(MODEL, version.version, description=card)
        new = used is None or used.version != version.version
        if new:
            if used is not None:
                client.set_registered_model_alias(MODEL, PREVIOUS, used.version)
            client.set_registered_model_alias(MODEL, CHAMPION, version.version)
        previous = used if new else by_alias(client, MODEL, PREVIOUS)
        return Promotion(version_of(client, MODEL, version.version), candidate.version, previous, new)


def mark_acted(site: Workspace, approval: Approval, *, refused: str = "") -> None:
    """Notes on a candidate that its decision was acted on, and why it was refused where it was."""
    with connection.client(site) as client:
        facts = {"approval": approval.verdict, "approver": approval.approver, "reason": approval.reason}
        _mark(client, approval, {**facts, **({"refused": refused} if refused else {})})


def roll_back(site: Workspace) -> Promotion:
    """Puts the previous model in use again; the one in use becomes `previous`. Raises RegistryError."""
    with connection.client(site) as client:
        used, previous = by_alias(client, MODEL, CHAMPION), by_alias(client, MODEL, PREVIOUS)
        if previous is None:
            raise RegistryError("there is no previous model to go back to")
        client.set_registered_model_alias(MODEL, CHAMPION, previous.version)
        if used is not None:
            client.set_registered_model_alias(MODEL, PREVIOUS, used.version)
        return Promotion(version_of(client, MODEL, previous.version), previous.tags.get("promoted", ""), used, True)


@contextmanager
def one_at_a_time(site: Workspace) -> Iterator[None]:
    """Holds the model in use still: two promotions on this machine do not cross."""
    site.root.mkdir(parents=True, exist_ok=True)
    with (site.root / ".promotion.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    return version_of(client, MODEL, made.version)
