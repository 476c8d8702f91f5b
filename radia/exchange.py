"""Lineage for other tools: OpenLineage run events and W3C PROV-JSON, from the ledger's events.

A step is a run (an activity), a digest is a dataset (an entity), a person or an account is an agent. Nothing is said
that the events do not say; patients' pseudonyms and per-image rows stay out. OpenLineage 2-0-2 (openlineage.io/spec),
PROV-JSON (W3C member submission, 24 April 2013).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from radia.ledger import Action, Event

PRODUCER = "urn:radia"
_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_DOCUMENTATION = "https://openlineage.io/spec/facets/1-0-1/DocumentationDatasetFacet.json"
_PARAMETERS = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
_PEOPLE = frozenset({Action.PROMOTE, Action.REJECT, Action.ROLLBACK, Action.READ, Action.ACCESSED, Action.WITHDRAW})


def to_openlineage(events: Iterable[Event], *, namespace: str = "radia") -> list[dict[str, Any]]:
    """Two run events a step, START and COMPLETE, as the specification asks; in the order of the ledger."""
    return [_run_event(event, kind, namespace) for event in events for kind in ("START", "COMPLETE")]


def to_prov(events: Iterable[Event]) -> dict[str, Any]:
    """One PROV-JSON document: entities by digest, activities by event, agents by name, and what binds them."""
    document: dict[str, Any] = {
        "prefix": {"radia": "urn:radia:"},
        **{kind: {} for kind in ("entity", "activity", "agent", "used", "wasGeneratedBy", "wasAssociatedWith")},
    }
    for event in events:
        activity, agent = f"radia:event-{event.sequence}", _agent(event.actor)
        document["activity"][activity] = {
            "prov:startTime": event.at,
            "prov:endTime": event.at,
            "prov:type": f"radia {event.action}",
            "radia:hash": event.hash,
            "radia:code": event.code,
        }
        document["agent"][agent] = {"prov:label": event.actor, "prov:type": _agent_type(event)}
        _bind(document, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": agent})
        for name, digest in event.inputs.items():
            document["entity"].setdefault(_entity(digest), {"prov:label": name})
            _bind(document, "used", {"prov:activity": activity, "prov:entity": _entity(digest)})
        for name, digest in event.outputs.items():
            document["entity"][_entity(digest)] = {"prov:label": name}
            made = {"prov:entity": _entity(digest), "prov:activity": activity, "prov:time": event.at}
            _bind(document, "wasGeneratedBy", made)
    return {kind: found for kind, found in document.items() if found}


def _run_event(event: Event, kind: str, namespace: str) -> dict[str, Any]:
    facts = {"actor": event.actor, "code": event.code, "sequence": event.sequence, "hash": event.hash}
    run = {
        "runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:radia:{event.hash}")),
        "facets": {"radia": {"_producer": PRODUCER, "_schemaURL": _PARAMETERS, **facts}},
    }
    return {
        "eventType": kind,
        "eventTime": event.at,
        "run": run,
        "job": {"namespace": namespace, "name": str(event.action)},
        "inputs": _datasets(event.inputs, namespace),
        "outputs": _datasets(event.outputs, namespace),
        "producer": PRODUCER,
        "schemaURL": _SCHEMA,
    }


def _datasets(table: Mapping[str, str], namespace: str) -> list[dict[str, Any]]:
    def described(name: str) -> dict[str, Any]:
        return {"documentation": {"_producer": PRODUCER, "_schemaURL": _DOCUMENTATION, "description": name}}

    return [{"namespace": namespace, "name": digest, "facets": described(name)} for name, digest in table.items()]


def _bind(document: dict[str, Any], kind: str, ends: Mapping[str, str]) -> None:
    document[kind][f"_:{kind}{len(document[kind]) + 1}"] = dict(ends)


def _entity(digest: str) -> str:
    return f"radia:{digest}" if digest.isalnum() else f"radia:{hashlib.sha256(digest.encode()).hexdigest()}"


def _agent(name: str) -> str:
    return f"radia:agent-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _agent_type(event: Event) -> dict[str, str]:
    kind = "prov:Person" if event.action in _PEOPLE else "prov:SoftwareAgent"
    return {"$": kind, "type": "prov:QUALIFIED_NAME"}
