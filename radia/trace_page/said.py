"""What a trace says, as its page takes it: events, nodes by kind, people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from radia.ledger import Action, Event
from radia.trace import Tree


def nodes_of(tree: Tree) -> Iterator[Tree]:
    """A node and all below it."""
    yield tree
    for child in tree.children:
        yield from nodes_of(child)


def events_of(tree: Tree, *actions: Action) -> list[Event]:
    """The events at and below a node, each once, in order; all, or those of some actions."""
    found = {node.event.sequence: node.event for node in nodes_of(tree) if node.event is not None}
    return [found[key] for key in sorted(found) if not actions or found[key].action in actions]


def named(tree: Tree, kind: str) -> dict[str, Tree]:
    """The nodes of a kind by name, such as the models; the first where one is there twice."""
    found: dict[str, Tree] = {}
    for node in nodes_of(tree):
        if node.label.startswith(f"{kind} "):
            found.setdefault(node.label.removeprefix(f"{kind} "), node)
    return found


def summary_of(event: Event) -> Mapping[str, Any]:
    """What a step said of its work."""
    summary = event.parameters.get("summary")
    return summary if isinstance(summary, Mapping) else {}


def people_of(events: Iterable[Event]) -> list[str]:
    """Who decided (an approver, a reader), then whose account wrote it down."""
    events = list(events)
    named = [person for event in events for person in event.people]
    return list(dict.fromkeys([*named, *(event.actor for event in events)]))


def dagster_run_of(event: Event) -> str:
    """The run of Dagster that wrote an event, where one did."""
    run = event.parameters.get("dagster_run_id")
    return run if isinstance(run, str) else ""
