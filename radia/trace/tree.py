"""A trace as values: labelled nodes with facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from radia.ledger import Event

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tree:
    """A labelled node with facts, the nodes below it, a table where there are many of a kind, and the event it is."""

    label: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Tree, ...] = ()
    rows: pd.DataFrame | None = None
    event: Event | None = None

    def find(self, label: str) -> Tree | None:
        """The first node below (or this one) whose label begins so."""
        if self.label.startswith(label):
            return self
        return next((found for child in self.children if (found := child.find(label))), None)


def present(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that say something."""
    return {name: value for name, value in facts.items() if value not in (None, "", {}, [], ()) and value == value}


def unknown(what: str, where: str, _asked: str, near: Sequence[str]) -> str:
    """Says what is near and never what was asked: a real patient's id could be typed by mistake."""
    hint = f"; the nearest: {', '.join(near[:3])}" if near else "; nothing there is like it"
    return f"no {what} of this id in {where}{hint}"


def nearest(asked: str, known: Iterable[str]) -> list[str]:
    """The names most like one that is not known: at most three."""
    return get_close_matches(asked, list(known), n=3, cutoff=0.5)
