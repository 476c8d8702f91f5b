"""The findings, drawn where anatomy puts them, each with its box.

A `Sign` says which finding, on which side and how severe; its seed decides everything else, so that a sign looks the
same at any side. Signs that change the anatomy (a large heart, lost volume) act before the chest is built, the others
change its path lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from radia.synthetic.anatomy import (
    LEFT,
    RIGHT,
    Body,
    Chest,
    Line,
    Point,
    Pose,
    Silhouette,
    build_chest,
    draw_lines,
    draw_vessels,
    mottle,
    place_mediastinum,
    redraw_ribs,
    usual_silhouette,
)
from radia.synthetic.grids import Field, clouds, dome, step


@dataclass(frozen=True)
class Sign:
    """One finding to draw. severity 0 (barely seen) .. 1 (plain); variant: which of its appearances."""

    finding: str
    side: int
    severity: float
    variant: str
    seed: int


def draw_chest(body: Body, pose: Pose, signs: Sequence[Sign], side: int, *, seed: int) -> Chest:
    """A chest with its findings; `boxes` of the result holds one or more boxes per sign."""
    form, strength, upper = usual_silhouette(body, pose), 1.0, 0.0
    for sign in signs:
        rng = np.random.default_rng(sign.seed)
        if sign.finding == "Cardiomegaly":
            form = replace(
                form, heart=form.heart * (1.24 + 0.22 * sign.severity), heart_tall=1.08 + 0.08 * sign.severity
            )
        elif sign.finding == "Enlarged Cardiomediastinum":
            form = replace(form, mediastinum=form.mediastinum * (1.45 + 0.55 * sign.severity), knob=form.knob * 1.35)
        elif sign.finding == "Edema":
            strength, upper = 1.1 + 0.2 * sign.severity, 0.3
            form = replace(form, hilum=1.3)
        elif sign.finding == "Atelectasis":
            lost = (0.02 + 0.045 * sign.severity) * (1.4 if sign.variant == "lobe" else 1.0)
            if sign.side == RIGHT:
                body = replace(body, base_right=body.base_right - lost)
            else:
                body = replace(body, base_left=body.base_left - lost)
            form = replace(form, shift=form.shift + sign.side * 0.4 * lost)
        elif sign.finding == "Pneumothorax" and sign.variant == "tension":
            form = replace(form, shift=form.shift - sign.side * rng.uniform(0.02, 0.05))
    chest = build_chest(body, pose, side, seed=seed)
    place_mediastinum(chest, form)
    draw_vessels(chest, strength=strength, upper=upper)
    mottle(chest)
    for sign in signs:
        _PAINTERS[sign.finding](chest, sign, form, np.random.default_rng(sign.seed))
    return chest


def _base(body: Body, side: int) -> float:
    return body.base_right if side == RIGHT else body.base_left


def _spot(chest: Chest, x: float, y: float, wide: float, tall: float) -> Field:
    """Squared distance from a point, in units of the two radii."""
    return ((chest.x - x) * (1 / wide)) ** 2 + ((chest.y - y) * (1 / tall)) ** 2


def _within(chest: Chest) -> Field:
    """1 in the lungs, 0 outside."""
    inside: Field = np.clip(chest.lung * 0.35, 0, 1)
    return inside


def _cardiomegaly(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    y = chest.body.base_left + 0.09 * (chest.pose.breath - 0.6) - 0.105
    chest.mark_box(sign.finding, -0.105 * form.heart, y - 0.12, 0.19 * form.heart, y + 0.10)


def _mediastinum(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    chest.mark_box(sign.finding, -0.065 * form.mediastinum, 0.14, 0.085 * form.mediastinum, 0.46)


def _effusion(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    half = chest.of_side(sign.side)
    floor = chest.domes[sign.side]
    base = _base(chest.body, sign.side)
    if sign.variant == "layering":  # lying: the fluid runs behind the lung
        top = base - 0.25 - 0.18 * sign.severity
        veil = step(chest.y - top, 0.5) * (0.42 + 0.3 * sign.severity)
        blunt = step(chest.y - floor + (0.05 + 0.06 * sign.severity), 0.12) * 0.8
        share = np.maximum(veil, blunt) * half
    else:
        a = np.clip(np.abs(chest.x) / np.maximum(chest.outer, 0.05), 0, 1.1)
        level = base + 0.055 - 0.24 * sign.severity
        rise = (0.07 + 0.10 * sign.severity) * a**4 + 0.02 * (1 - a) ** 3
        surface = level - rise + 0.02
        share = step(chest.y - surface, 0.03) * half * 0.93
    chest.mark(sign.finding, share * _within(chest))
    chest.fill(share)


def _pneumothorax(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    half = chest.of_side(sign.side)
    gap = 0.03 + 0.075 * sign.severity
    top = chest.body.apex + 0.045 + 0.12 * sign.severity
    a = np.clip((0.62 - chest.y) * (1 / (0.62 - top)), 0, 1)
    fade = 1 - 0.6 * np.clip((chest.y - 0.5) * 4.0, 0, 1)
    wall = np.maximum(chest.outer - gap * fade, 0) * (1 - a**2.4) ** 0.45
    inset = np.abs(chest.x) - wall
    free = step(inset, 0.008) * half
    line = np.clip(1 - np.abs(inset) * (1 / 0.0045), 0, 1) * half * _within(chest)
    chest.mark(sign.finding, free * _within(chest), above=0.5)
    chest.gas = np.maximum(chest.gas, free)
    chest.fill(half * (1 - free) * (0.10 + 0.12 * sign.severity))
    chest.tissue += line * 1.1


def _patch(
    chest: Chest, x: float, y: float, size: float, rng: np.random.Generator, *, ragged: float, edge: float
) -> Field:
    """An irregular area of about `size`, 0..1."""
    radius = np.sqrt(_spot(chest, x, y, size, size * rng.uniform(0.8, 1.25)))
    rough = clouds(rng, chest.side, scale=size * 0.9, octaves=2)
    return step(1 - radius + ragged * rough, edge)


def _consolidation(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    upper = sign.variant == "upper"
    x = sign.side * rng.uniform(0.15, 0.24)
    y = rng.uniform(0.26, 0.36) if upper else rng.uniform(0.52, 0.64)
    size = 0.075 + 0.05 * sign.severity
    area = _patch(chest, x, y, size, rng, ragged=0.32, edge=0.8) * chest.of_side(sign.side)
    fissure = (y + size * 0.55) if upper else (y - size * 0.55)  # one border is a fissure: sharp and nearly straight
    across = (0.15 * sign.side) * (chest.x - x)
    bound = (fissure + across - chest.y) * (1 if upper else -1)
    area = area * step(bound + 0.012 * clouds(rng, chest.side, scale=0.12), 0.014)
    share = area * (0.62 + 0.28 * sign.severity)
    chest.mark(sign.finding, area * _within(chest))
    chest.fill(share)
    airways = []
    for _ in range(4):  # air bronchograms
        angle = rng.uniform(-0.9, 0.9)
        reach = size * rng.uniform(0.5, 1.0)
        start = (x - sign.side * reach * 0.5, y - 0.3 * reach * np.sin(angle) + rng.normal(0, 0.2 * size))
        end = (start[0] + sign.side * reach * np.cos(angle), start[1] + reach * np.sin(angle))
        airways.append(Line([start, end], 0.005, 1.1))
    chest.tissue -= draw_lines(chest, airways)


def _pneumonia(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    """Bronchopneumonia: several soft patches along the bronchi of one or both lower lobes."""
    total = np.zeros_like(chest.lung)
    sides = (RIGHT, LEFT) if sign.variant == "bilateral" else (sign.side,)
    for side in sides:
        for _ in range(4 + int(3 * sign.severity)):
            x, y = side * rng.uniform(0.12, 0.29), rng.uniform(0.44, 0.70)
            total = np.maximum(total, _patch(chest, x, y, rng.uniform(0.03, 0.06), rng, ragged=0.5, edge=1.7))
    chest.mark(sign.finding, total * _within(chest))
    chest.fill(total * (0.38 + 0.3 * sign.severity))


def _opacity(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    """Ground glass and a fine net of thick septa over a zone: ill defined, vessels still seen."""
    x, y = sign.side * rng.uniform(0.15, 0.23), rng.uniform(0.25, 0.58)
    if sign.variant == "net":
        area = step(1.1 - np.sqrt(_spot(chest, x, y, 0.15, 0.2)), 1.3)
        net = clouds(rng, chest.side, scale=0.013, octaves=2, roughness=0.5)
        chest.tissue += (
            area * _within(chest) * (0.2 + np.maximum(0.9 - np.abs(net), 0) * 1.5) * (0.8 + 0.6 * sign.severity)
        )
        chest.fill(area * (0.18 + 0.1 * sign.severity))
    else:
        area = step(1.1 - np.sqrt(_spot(chest, x, y, 0.13, 0.17)), 1.5)
        chest.fill(area * (0.42 + 0.2 * sign.severity))
    chest.mark(sign.finding, area * _within(chest) * chest.of_side(sign.side), above=0.4)


def _lesion(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    count = {"single": 1, "pair": 2, "metastases": int(rng.integers(4, 8))}[sign.variant]
    for index in range(count):
        side = sign.side if index == 0 else int(rng.choice((RIGHT, LEFT)))
        radius = (0.030 + 0.028 * sign.severity) * rng.uniform(0.8, 1.15) * (0.8 if count > 2 else 1.0)
        x, y = side * rng.uniform(0.13, 0.28), rng.uniform(0.24, 0.62)
        rough = 1 + 0.09 * clouds(rng, chest.side, scale=radius * 1.5)
        ball = dome(_spot(chest, x, y, radius, radius) * rough)
        chest.tissue += ball * (3.2 + 60 * radius) * np.minimum(_within(chest) + 0.15, 1)
        chest.mark_box(sign.finding, x - radius, y - radius, x + radius, y + radius)


def _edema(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    distance = np.abs(chest.x)
    wing = step(
        1.15 - np.sqrt(((distance - 0.11) / 0.15) ** 2 + ((chest.y - 0.46) / 0.24) ** 2),
        1.3,
    )
    rough = np.clip(1 + 0.3 * clouds(rng, chest.side, scale=0.06, octaves=2), 0.3, 1.7)
    chest.mark(sign.finding, wing * _within(chest), above=0.45)
    chest.fill(wing * rough * (0.26 + 0.26 * sign.severity))
    septa = []
    for side in (RIGHT, LEFT):  # Kerley B lines
        x = side * (chest.body.width - 0.012)
        for _ in range(6):
            y = rng.uniform(0.55, 0.70)
            septa.append(Line([(x, y), (x - side * rng.uniform(0.02, 0.04), y + rng.normal(0, 0.004))], 0.003, 0.8))
    chest.vessels += draw_lines(chest, septa)


def _atelectasis(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    base = _base(chest.body, sign.side) + 0.09 * (chest.pose.breath - 0.6)
    if sign.variant == "lobe":  # a collapsed lower lobe: a triangle behind the heart or beside the spine
        slope = (np.abs(chest.x) - 0.03) * (1 / (0.13 + 0.05 * sign.severity))
        height = (chest.y - (base - 0.30)) * (1 / 0.30)
        area = step(height - slope, 0.08) * chest.of_side(sign.side)
        chest.mark(sign.finding, area * _within(chest))
        chest.fill(area * 0.8)
        return
    for _ in range(2 + int(2.5 * sign.severity)):
        x, y = sign.side * rng.uniform(0.17, 0.25), base - rng.uniform(0.025, 0.14)
        length, lean, bow = rng.uniform(0.06, 0.10), rng.normal(0, 0.2), rng.normal(0, 0.01)
        t = (chest.x - x) * (1 / length)
        axis = y + lean * (chest.x - x) + bow * t * t
        thick = 0.006 + 0.005 * sign.severity
        band = step(thick - np.abs(chest.y - axis), 0.008) * step(1 - np.abs(t), 0.5)
        chest.mark(sign.finding, band * _within(chest))
        chest.tissue += band * (2.2 + 1.8 * sign.severity) * _within(chest)


def _pleural_other(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    half = chest.of_side(sign.side)
    inset = chest.outer - np.abs(chest.x)
    if sign.variant == "plaques":  # calcified: dense, sharp, irregular
        total = np.zeros_like(chest.lung)
        for _ in range(3 + int(3 * sign.severity)):
            x, y = sign.side * rng.uniform(0.17, 0.31), rng.uniform(0.42, 0.70)
            spot = _spot(chest, x, y, rng.uniform(0.02, 0.04), rng.uniform(0.009, 0.018))
            rough = clouds(rng, chest.side, scale=0.02, octaves=2)
            total = np.maximum(total, step(1 - spot + 0.5 * rough, 0.5))
        chest.mark(sign.finding, total)
        chest.bone += total * (2.2 + 1.2 * sign.severity)
        return
    wavy = clouds(rng, chest.side, scale=0.09)
    if sign.variant == "cap":
        thick = (0.022 + 0.026 * sign.severity) * (1 + 0.2 * wavy)
        along = step((chest.body.apex + 0.16) - chest.y, 0.05) * step(chest.y - (chest.body.apex + 0.01), 0.02)
        share = step(thick - inset * 0.75, 0.014) * half * along
    else:
        thick = (0.028 + 0.026 * sign.severity) * (1 + 0.25 * wavy)
        along = step(chest.y - 0.34, 0.1) * step(chest.domes[sign.side] + 0.02 - chest.y, 0.04)
        share = step(thick - inset, 0.014) * half * along
    chest.mark(sign.finding, share * np.clip(chest.lung, 0, 1))
    chest.fill(share * 0.95)
    chest.tissue += share * 2.6 * step(inset + 0.004, 0.008)


def _fracture(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    if sign.variant == "clavicle":
        x = sign.side * rng.uniform(0.15, 0.22)
        y = chest.body.apex + 0.075 + chest.body.clavicle - 0.03
        near = np.clip(1 - np.abs(chest.x - x) * (1 / 0.022), 0, 1)
        gap = near * step(0.035 - np.abs(chest.y - y), 0.03)
        chest.bone = chest.bone * (1 - np.minimum(gap * 1.6, 1))
        turn = rng.uniform(0.4, 0.8)
        ends = []
        for way in (-1, 1):  # the fragments ride over each other
            start = (x, y + way * 0.014)
            ends.append(Line([start, (x + way * 0.05, start[1] - turn * way * 0.025)], 0.022, 2.2))
        chest.bone += draw_lines(chest, ends)
        chest.mark_box(sign.finding, x - 0.05, y - 0.045, x + 0.05, y + 0.045)
        return
    a, y = rng.uniform(0.66, 0.86), rng.uniform(0.34, 0.56)
    x = sign.side * a * chest.body.width
    ribs = 3 + int(2.4 * sign.severity)
    tall = 0.5 * ribs * chest.body.rib_spacing
    reach = step(tall - np.abs(chest.y - y), 0.02)
    beyond = (np.abs(chest.x) - abs(x)) * (1 / 0.045)
    offset = np.where(beyond > 0, np.maximum(1 - beyond, 0), 0) * reach * chest.of_side(sign.side)
    redraw_ribs(chest, offset * (rng.choice((-1, 1)) * (0.36 + 0.14 * sign.severity)))
    cut = np.clip(1 - np.abs(beyond) * 6, 0, 1) * reach * chest.of_side(sign.side)
    chest.cage = chest.cage * (1 - cut)
    haematoma = step(1 - np.sqrt(_spot(chest, sign.side * chest.body.width * 0.97, y, 0.05, tall * 1.05)), 0.5)
    haematoma *= step(chest.outer + 0.015 - np.abs(chest.x), 0.02)
    chest.tissue += haematoma * (4.5 + 3.0 * sign.severity)
    chest.mark_box(sign.finding, x - 0.04, y - tall, x + 0.05, y + tall)


def _devices(chest: Chest, sign: Sign, form: Silhouette, rng: np.random.Generator) -> None:
    for name in sign.variant.split("+"):
        _DEVICES[name](chest, sign, rng)


def _mark_points(chest: Chest, finding: str, points: Sequence[Point]) -> None:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    chest.mark_box(finding, min(xs) - 0.008, max(min(ys), 0.0) - 0.008, max(xs) + 0.008, min(max(ys), 1.0) + 0.008)


def _curve(points: Sequence[Point], count: int = 24) -> list[Point]:
    """A smooth path through points (Catmull-Rom)."""
    p = np.asarray([points[0], *points, points[-1]], float)
    t = np.linspace(0, len(points) - 1 - 1e-6, count)
    index = t.astype(int)
    u = (t - index)[:, None]
    p0, p1, p2, p3 = (p[index + offset] for offset in range(4))
    path = 0.5 * (2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2 + (3 * p1 - p0 - 3 * p2 + p3) * u**3)
    return [(float(x), float(y)) for x, y in path]


def _wire(chest: Chest, sign: Sign, points: Sequence[Point], *, width: float, strength: float) -> None:
    path = _curve(points)
    chest.metal += draw_lines(chest, [Line(path, width, strength)])
    _mark_points(chest, sign.finding, path)


def _tube_endotracheal(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    x, end = rng.normal(0, 0.004), rng.uniform(0.27, 0.33)
    _wire(chest, sign, [(x, -0.05), (x + 0.004, 0.1), (x, 0.2), (x, end)], width=0.013, strength=1.1)


def _tube_gastric(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    x = rng.normal(0.006, 0.004)
    points = [(x, -0.05), (x, 0.2), (x + 0.012, 0.5), (x + 0.04, 0.78), (0.12, 0.88), (0.2, rng.uniform(0.84, 0.93))]
    _wire(chest, sign, points, width=0.010, strength=1.2)


def _line_jugular(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    end = rng.uniform(0.40, 0.52)
    points = [(-0.09, -0.02), (-0.075, 0.08), (-0.05, 0.18), (-0.042, 0.3), (-0.04, end)]
    _wire(chest, sign, points, width=0.010, strength=1.2)


def _line_picc(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    side = sign.side or RIGHT
    end = rng.uniform(0.40, 0.50)
    points = [
        (side * 0.50, 0.34),
        (side * 0.36, 0.23),
        (side * 0.2, 0.195),
        (side * 0.07, 0.23),
        (-0.04, 0.31),
        (-0.04, end),
    ]
    _wire(chest, sign, points, width=0.008, strength=1.2)


def _pacemaker(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    cx, cy = rng.uniform(0.21, 0.27), rng.uniform(0.235, 0.29)
    turn = rng.normal(0.3, 0.2)
    angle = np.linspace(0, 2 * np.pi, 28)
    bumps = np.abs(np.cos(angle)) ** 0.6 * np.sign(np.cos(angle)), np.abs(np.sin(angle)) ** 0.6 * np.sign(np.sin(angle))
    outline = [
        (
            cx + 0.05 * float(u * np.cos(turn) - v * np.sin(turn)),
            cy + 0.038 * float(u * np.sin(turn) + v * np.cos(turn)),
        )
        for u, v in zip(*bumps, strict=True)
    ]
    chest.metal += draw_lines(chest, [Line(outline, 0, 1.8)])
    _mark_points(chest, sign.finding, outline)
    tips = [(rng.uniform(0.07, 0.11), rng.uniform(0.66, 0.70)), (-0.05, rng.uniform(0.55, 0.6))][
        : int(rng.integers(1, 3))
    ]
    for tip in tips:
        path = [(cx, cy - 0.03), (0.15, 0.19), (0.02, 0.23), (-0.035, 0.34), (-0.045, 0.52), (-0.02, 0.63), tip][
            : 7 if tip[0] > 0 else 5
        ]
        _wire(chest, sign, path if tip[0] > 0 else [*path, tip], width=0.008, strength=1.5)


def _tube_chest(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    side = sign.side or RIGHT
    y = rng.uniform(0.5, 0.66)
    points = [(side * 0.52, y + 0.1), (side * 0.36, y), (side * 0.24, y - 0.12), (side * 0.17, rng.uniform(0.2, 0.36))]
    _wire(chest, sign, points, width=0.016, strength=1.0)


def _electrodes(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    lines = []
    for at_x, at_y in ((-0.25, 0.22), (0.27, 0.21), (0.3, 0.62), (-0.28, 0.66)):
        x, y, sag = at_x + rng.normal(0, 0.02), at_y + rng.normal(0, 0.02), rng.normal(0, 0.05)
        cable = _curve([(x, y), (x * 0.8 + sag, y + 0.12), (x * 0.6 - sag, y + 0.32), (x * 0.5, 1.05)])
        lines += [Line(_ring(x, y, 0.015, 0.015), 0, 1.5), Line(cable, 0.006, 1.2)]
        _mark_points(chest, sign.finding, cable)
    chest.metal += draw_lines(chest, lines)


def _sternal_wires(chest: Chest, sign: Sign, rng: np.random.Generator) -> None:
    lines = []
    for y in (0.27, 0.34, 0.40, 0.47, 0.53, 0.60):
        x, turn = rng.normal(0, 0.003), rng.uniform(-1, 1)
        knot = [(x, y), (x + 0.012 * turn, y + 0.012), (x + 0.016 * turn, y + 0.010)]
        lines += [Line(_ring(x, y, 0.017, rng.uniform(0.004, 0.009)), 0.004, 1.8), Line(knot, 0.005, 1.8)]
    chest.metal += draw_lines(chest, lines)
    chest.mark_box(sign.finding, -0.02, 0.25, 0.02, 0.62)


def _ring(x: float, y: float, wide: float, tall: float) -> list[Point]:
    turn = np.linspace(0, 2 * np.pi, 14)
    return list(zip((x + wide * np.cos(turn)).tolist(), (y + tall * np.sin(turn)).tolist(), strict=True))


Painter = Callable[[Chest, Sign, Silhouette, np.random.Generator], None]

_PAINTERS: dict[str, Painter] = {
    "Enlarged Cardiomediastinum": _mediastinum,
    "Cardiomegaly": _cardiomegaly,
    "Lung Opacity": _opacity,
    "Lung Lesion": _lesion,
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Pleural Effusion": _effusion,
    "Pleural Other": _pleural_other,
    "Fracture": _fracture,
    "Support Devices": _devices,
}

_DEVICES: dict[str, Callable[[Chest, Sign, np.random.Generator], None]] = {
    "endotracheal": _tube_endotracheal,
    "gastric": _tube_gastric,
    "jugular": _line_jugular,
    "picc": _line_picc,
    "pacemaker": _pacemaker,
    "drain": _tube_chest,
    "electrodes": _electrodes,
    "sternotomy": _sternal_wires,
}

VARIANTS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("wide",),
    "Cardiomegaly": ("large",),
    "Lung Opacity": ("haze", "net"),
    "Lung Lesion": ("single", "pair", "metastases"),
    "Edema": ("alveolar",),
    "Consolidation": ("upper", "lower"),
    "Pneumonia": ("one", "bilateral"),
    "Atelectasis": ("bands", "lobe"),
    "Pneumothorax": ("apical", "tension"),
    "Pleural Effusion": ("meniscus", "layering"),
    "Pleural Other": ("wall", "cap", "plaques"),
    "Fracture": ("ribs", "clavicle"),
    "Support Devices": (
        "endotracheal+gastric+jugular",
        "jugular",
        "picc",
        "pacemaker",
        "drain",
        "electrodes",
        "sternotomy",
        "electrodes+gastric",
    ),
}
"""Every appearance a finding can take. A site's population says how often it sees each."""
