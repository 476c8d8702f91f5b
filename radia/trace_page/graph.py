"""The way of the data, drawn: inline SVG without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from radia.ledger import Action, Event
from radia.trace import Tree
from radia.trace_page.links import Links
from radia.trace_page.said import events_of, named, people_of, summary_of

MANY = 4
"""So many batches, snapshots or models are drawn each; more are drawn as one."""


_DATA = ("source files", "batch", "clean DICOM", "images", "snapshot")
_MODEL = ("base", "model", "evaluation", "approval", "in use")
_WORDS = {
    Action.INTAKE: "received",
    Action.DEIDENTIFY: "de-identified",
    Action.IMAGES: "prepared",
    Action.LABELS: "labelled",
    Action.CHECK: "checked",
    Action.SNAPSHOT: "frozen",
    Action.FINETUNE: "trained",
    Action.BASE_MODEL: "taken as base",
    Action.EVALUATE: "evaluated",
    Action.REGISTER: "registered",
    Action.PROMOTE: "approved",
    Action.REJECT: "rejected",
    Action.ROLLBACK: "rolled back",
}
_DECISIONS = (Action.PROMOTE, Action.REJECT, Action.ROLLBACK)


_WIDTH, _PITCH, _HEIGHT, _ROW, _HEAD = 140, 250, 58, 96, 32
_TOTAL = 4 * _PITCH + _WIDTH + 24


@dataclass(frozen=True)
class _Box:
    """A node: column 0 to 4, the middle of its row in pixels, a title and a line below it, and where it leads."""

    column: int
    y: float
    title: str
    line: str = ""
    kind: str = ""
    link: str = ""

    @property
    def x(self) -> float:
        return 2 + self.column * _PITCH

    def svg(self) -> str:
        top = self.y - _HEIGHT / 2
        full = " · ".join(filter(None, (self.title, self.line)))
        second = f'<text class="soft" x="{self.x + 10}" y="{self.y + 16}">{escape(_short(self.line, 22))}</text>'
        return _linked(
            f'<g><title>{escape(full)}</title><rect class="box {self.kind}" x="{self.x}" y="{top}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" rx="8"/><text class="name" x="{self.x + 10}" y="{self.y - (3 if self.line else -4)}">'
            f"{escape(_fitting(self.title, _WIDTH - 20))}</text>{second if self.line else ''}</g>",
            self.link,
        )


def graph(tree: Tree, links: Links | None = None) -> str:
    """The drawing, or nothing where the trace has no way to draw (a person, an event)."""
    links = links or Links()
    snapshots, models = named(tree, "snapshot"), named(tree, "model")
    batches = _batches(tree)
    if not (batches or snapshots or models):
        return ""
    drawn, height, ends = _data_band(tree, batches, snapshots, links)
    if models:
        below, height = _model_band(tree, snapshots, models, ends, height, links)
        drawn += below
    label = escape(f"The way of the data: {tree.label}", quote=True)
    role = "group" if links.traces else "img"  # an image has no links in it
    return (
        f'<div class="wide"><svg role="{role}" aria-label="{label}" viewBox="0 0 {_TOTAL} {height:g}" width="{_TOTAL}">'
        f"{_ARROW}{''.join(drawn)}</svg></div>"
    )


def _batches(tree: Tree) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events_of(tree, Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES):
        name = str(summary_of(event).get("batch") or next(iter(event.outputs), "batch"))
        found.setdefault(name, []).append(event)
    return found


def _data_band(
    tree: Tree, batches: Mapping[str, list[Event]], snapshots: Mapping[str, Tree], links: Links
) -> tuple[list[str], float, dict[str, _Box]]:
    """The upper band; also how high it is, and the box of each snapshot."""
    asked = _images_asked(tree)
    rows = list(batches.items())
    if len(rows) > MANY:
        rows = [(f"{len(rows)} batches", [event for _, events in rows for event in events])]
    drawn = [_heading(_DATA, 0)]
    sources: list[_Box] = []
    y = _HEAD + _ROW / 2
    for name, events in rows:
        boxes = _batch_boxes(name, events, y, asked.get(name, ()), links if name in batches else Links())
        for box in boxes:
            drawn.append(box.svg())
        for action, start, end in zip(_STEPS, boxes, boxes[1:], strict=False):
            drawn.append(_edge([start], end, [event for event in events if event.action == action], links))
        sources.append(boxes[-1])
        y += _ROW
    for box, events in _side_boxes(tree, y):
        drawn += [box.svg(), _edge([], box, events, links)]
        sources.append(box)
        y += _ROW
    groups = [(name, [node]) for name, node in snapshots.items()]
    if len(groups) > MANY:
        groups = [(f"{len(groups)} snapshots", list(snapshots.values()))]
    ends: dict[str, _Box] = {}
    for place, (name, nodes) in enumerate(groups):
        at = _HEAD + _ROW * (place + 0.5)
        box = _Box(4, at, name, _snapshot_line(nodes), "data", _frozen_by(nodes, links))
        frozen = [node.event for node in nodes if node.event is not None]
        drawn += [box.svg(), _edge(sources, box, frozen, links, lane=place)]
        ends |= {node.label.removeprefix("snapshot "): box for node in nodes}
    return drawn, max(y, _HEAD + _ROW * len(groups) + _ROW / 2), ends


_STEPS = (Action.INTAKE, Action.DEIDENTIFY, Action.IMAGES)


def _frozen_by(nodes: Sequence[Tree], links: Links) -> str:
    """The event that froze a snapshot."""
    frozen = nodes[0].event if len(nodes) == 1 else None
    return "" if frozen is None else links.trace("event", str(frozen.sequence))


def _batch_boxes(name: str, events: Sequence[Event], y: float, asked: Sequence[str], links: Links) -> list[_Box]:
    """Source files, batch, clean DICOM, images; of an image or a patient, how many of the batch's."""

    def count(action: Action, key: str) -> str:
        found = [summary_of(event).get(key) for event in events if event.action == action]
        numbers = [number for number in found if isinstance(number, int)]
        total = f"{sum(numbers):,}" if numbers else ""
        return " of ".join(filter(None, (f"{len(asked):,}" if asked else "", total))) or "not counted"

    cleaned = [event for event in events if event.action == Action.DEIDENTIFY]
    refused = sum(int(summary_of(event).get("refused") or 0) for event in cleaned)
    site = ", ".join(sorted({str(summary_of(event)["site"]) for event in events if "site" in summary_of(event)}))
    images = f"{asked[0]}" if len(asked) == 1 else count(Action.IMAGES, "images")
    return [
        _Box(0, y, count(Action.INTAKE, "files"), "files received", "data"),
        _Box(1, y, name, f"site {site}" if site else "", "data", links.trace("batch", name)),
        _Box(2, y, count(Action.DEIDENTIFY, "clean"), f"{refused:,} of the batch refused", "data"),
        _Box(3, y, images, count(Action.IMAGES, "images"), "data", links.trace("image", images))
        if len(asked) == 1
        else _Box(3, y, images, "images", "data"),
    ]


def _images_asked(tree: Tree) -> dict[str, list[str]]:
    """The images that the trace is of, by batch: those of an image or a patient."""
    found: dict[str, list[str]] = {}
    for name, node in named(tree, "image").items():
        for batch in named(node, "batch"):
            found.setdefault(batch, []).append(name)
    return found


def _side_boxes(tree: Tree, y: float) -> list[tuple[_Box, list[Event]]]:
    """Labels and checks, which a snapshot takes beside the images."""
    found: list[tuple[_Box, list[Event]]] = []
    for action, title, key, unit in (
        (Action.LABELS, "labels", "labelled_studies", "studies"),
        (Action.CHECK, "quality checks", "rules", "rules"),
    ):
        if events := events_of(tree, action):
            number = summary_of(events[-1]).get(key)
            line = f"{number:,} {unit}" if isinstance(number, int) else ""
            failed = summary_of(events[-1]).get("failed")
            line += f", {len(failed)} failed" if action == Action.CHECK and isinstance(failed, list) else ""
            found.append((_Box(3, y + _ROW * len(found), title, line, "side"), events))
    return found


def _snapshot_line(nodes: Sequence[Tree]) -> str:
    numbers = [number for node in nodes if isinstance(number := node.detail.get("images"), int)]
    split = nodes[0].detail.get("split") if len(nodes) == 1 else None
    side = f", {split}" if isinstance(split, str) else ""
    return f"{sum(numbers):,} image{'s' if sum(numbers) != 1 else ''}{side}" if numbers else ""


def _model_band(
    tree: Tree,
    snapshots: Mapping[str, Tree],
    models: Mapping[str, Tree],
    ends: Mapping[str, _Box],
    top: float,
    links: Links,
) -> tuple[list[str], float]:
    """The lower band, and where it ends."""
    groups = [(name, [node]) for name, node in models.items()]
    if len(groups) > MANY:
        groups = [(f"{len(groups)} models", list(models.values()))]
    y = top + 26 + _HEAD + _ROW / 2
    base = events_of(tree, Action.BASE_MODEL)
    drawn = [_heading(_MODEL if base else ("", *_MODEL[1:]), top + 26)]
    start = [_Box(0, y, "base model", str(summary_of(base[-1]).get("base", "")), "side")] if base else []
    drawn += [box.svg() for box in start]
    for name, nodes in groups:
        boxes = _model_boxes(name, nodes, y, links)
        events = [event for node in nodes for event in events_of(node)]
        trained = [event for event in events if event.action == Action.FINETUNE]
        trained = trained or [event for event in events if event.action == Action.REGISTER]
        seen = [
            box
            for digest, box in ends.items()
            if any(tree is node or _holds(snapshots[digest], node) for node in nodes)
        ]
        drawn.append(_edge(start, boxes[0], trained, links, joined=bool(seen)))
        drawn += [_way_down(box, boxes[0], top + 12) for box in dict.fromkeys(seen)]
        judged = [event for event in events if event.action == Action.EVALUATE]
        decided = [event for event in events if event.action in _DECISIONS]
        drawn += [box.svg() for box in boxes]
        drawn += [_edge([boxes[0]], boxes[1], judged, links), _edge([boxes[1]], boxes[2], decided, links)]
        drawn.append(_edge([boxes[2]], boxes[3], [], links))
        y += _ROW
    return drawn, y - _ROW + _HEIGHT / 2 + 30


def _holds(snapshot: Tree, model: Tree) -> bool:
    return any(child.label == model.label for child in snapshot.children)


def _model_boxes(name: str, nodes: Sequence[Tree], y: float, links: Links) -> list[_Box]:
    """Model, evaluation, approval, in use; what did not happen is dashed."""
    one = nodes[0] if len(nodes) == 1 else None
    events = [event for node in nodes for event in events_of(node)]
    gates = [event for event in events if event.action == Action.GATE]
    judged = [event for event in events if event.action == Action.EVALUATE]
    decided = [event for event in events if event.action in _DECISIONS]
    auroc = _auroc(judged[-1]) if one and judged else None
    passed = f"gate {'passed' if summary_of(gates[-1]).get('passed') else 'failed'}" if one and gates else ""
    in_use = [made for event in decided if event.action == Action.PROMOTE for made in event.outputs if "/" in made]
    mlflow = one.find("MLflow") if one else None
    waiting = str(mlflow.detail.get("approval", "")) if mlflow else ""
    verdict = _WORDS[decided[-1].action] if one and decided else f"{len(decided)} decisions" if decided else ""
    reason = str(decided[-1].parameters.get("reason", "")) if one and decided else ""
    used = str(one.detail.get("used", "")) if one else ""
    run = str(one.detail.get("run", "")) if one else ""
    return [
        _Box(
            1, y, name, used or (f"run {run[:12]}" if run else ""), "model", links.trace("model", name) if one else ""
        ),
        _Box(2, y, f"AUROC {auroc:.3f}" if auroc is not None else "evaluated", passed, "model")
        if judged or gates
        else _Box(2, y, "none on record", "", "open"),
        _Box(3, y, verdict, reason, "model") if decided else _Box(3, y, waiting or "no decision yet", "", "open"),
        _Box(4, y, in_use[-1], "", "model", links.trace("model", in_use[-1]))
        if len(in_use) == 1 or (one and in_use)
        else _Box(4, y, f"{len(in_use)} models", "", "model")
        if in_use
        else _Box(4, y, "not in use", "", "open"),
    ]


def _auroc(event: Event) -> float | None:
    found: Any = summary_of(event).get("mean_auroc")
    for key in ("candidate", "value"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, float) else None


def _heading(names: Sequence[str], y: float) -> str:
    return "".join(f'<text class="head" x="{2 + i * _PITCH}" y="{y + 20:g}">{n}</text>' for i, n in enumerate(names))


def _linked(drawn: str, address: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{drawn}</a>' if address else drawn


def _edge(
    starts: Sequence[_Box],
    end: _Box,
    events: Sequence[Event],
    links: Links,
    *,
    lane: int = 0,
    joined: bool = False,
) -> str:
    """Arrows from some boxes into one, with the action, the date and the people of its events.

    lane: apart from the arrows into other boxes of the column. joined: another line comes in from above.
    """
    tip, bus = end.x - 2, _bus(end) - 4 * min(lane, 2)
    if not starts and not events:
        return ""
    tail = bus if starts or joined else tip - 90
    lines = "".join(f'<path class="line" d="M{box.x + _WIDTH} {box.y:g}H{bus:g}V{end.y:g}"/>' for box in starts)
    lines += f'<path class="line" marker-end="url(#tip)" d="M{tail:g} {end.y:g}H{tip:g}"/>'
    return lines + (_caption(end.x - 94, end.y, events, links) if events else "")


def _bus(end: _Box) -> float:
    """Where arrows into a box meet."""
    return end.x - (_PITCH - _WIDTH) + 11


def _caption(x: float, y: float, events: Sequence[Event], links: Links) -> str:
    words = dict.fromkeys(_WORDS.get(event.action, str(event.action)) for event in events)
    days = sorted({event.at[:10] for event in events})
    when = days[0] if len(days) == 1 else f"{days[0]} …"
    numbers = ", ".join(str(event.sequence) for event in events[:6]) + (" …" if len(events) > 6 else "")
    title = f"event {numbers}: {events[0].at}" + (f" to {events[-1].at}" if len(events) > 1 else "")
    people = people_of(events)
    shown = people if len(people) <= 2 else [people[0], f"and {len(people) - 1} more"]
    pills = "".join(
        _linked(
            f"<g><title>{escape(', '.join(people))}</title>"
            f'<rect class="who" x="{x:g}" y="{y + 18 + 18 * i:g}" width="82" '
            f'height="16" rx="8"/><circle class="face" cx="{x + 9:g}" cy="{y + 26 + 18 * i:g}" r="3"/>'
            f'<text class="tiny" x="{x + 16:g}" y="{y + 29.5 + 18 * i:g}">{escape(_short(person, 11))}</text></g>',
            links.trace("person", person if person in people else ""),
        )
        for i, person in enumerate(shown)
    )
    said = (
        f'<g><title>{escape(title)}</title><text class="act" x="{x:g}" y="{y - 6:g}">'
        f"{escape(_short(' / '.join(words), 14))}</text>"
        f'<text class="tiny soft" x="{x:g}" y="{y + 13:g}">{when}</text></g>'
    )
    return _linked(said, links.trace("event", str(events[-1].sequence))) + pills


def _way_down(start: _Box, end: _Box, channel: float) -> str:
    """From a snapshot's right side, between the bands, to a model's arrow."""
    right, bus = start.x + _WIDTH, _bus(end)
    return f'<path class="line" d="M{right} {start.y:g}h12V{channel:g}H{bus:g}V{end.y:g}"/>'


def _fitting(text: str, pixels: float) -> str:
    """A title cut to a width, by what letters of the bold face take at most."""
    taken = 0.0
    for place, letter in enumerate(text):
        taken += 9.6 if letter.isupper() else 7.8
        if taken > pixels:
            return f"{text[: place - 1]}…"
    return text


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
)
