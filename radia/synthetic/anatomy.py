"""A healthy chest: the patient's build and pose, and the path lengths of air, soft tissue and bone along each ray.

Coordinates: `across` runs from -0.5 (image left, the patient's right) to 0.5, `down` from 0 (top) to 1; both are
fractions of the image's side. Depths are centimetres. Findings are not drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from radia.synthetic.grids import Field, clouds, deposit, dome, mound, slab, spread, step, tube

RIGHT, LEFT = -1, 1
"""The patient's sides, by where they lie in the image."""

CANVAS = 512
"""Side of the canvas on which lines (vessels, wires) are drawn before they are averaged down."""

Point = tuple[float, float]
Floats = NDArray[np.float64]
FloatArray = TypeVar("FloatArray", Field, Floats)
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the image's side."""


@dataclass(frozen=True)
class Body:
    """What stays the same when a patient returns."""

    sex: str
    age: int
    width: float  # half width of the rib cage
    apex: float  # where the lungs begin
    base_right: float  # top of the right diaphragm
    base_left: float
    depth: float  # chest, front to back, cm
    fat: float  # soft tissue beside the ribs
    rib_spacing: float
    rib_slope: float
    heart: float  # half width of the heart over a usual one
    knob: float  # radius of the aortic arch over a usual one
    scoliosis: float
    breast: float
    clavicle: float
    seed: int


@dataclass(frozen=True)
class Pose:
    """How the patient stood or lay in front of the detector."""

    view: str  # 'PA' or 'AP'
    scale: float
    across: float
    down: float
    tilt: float
    breath: float  # 0 shallow .. 1 deep
    arms: float


def sample_body(rng: np.random.Generator, *, sex: str, age: int) -> Body:
    """A patient's build."""
    male = sex == "M"
    return Body(
        sex=sex,
        age=age,
        width=float(rng.normal(0.375 if male else 0.362, 0.014)),
        apex=float(rng.normal(0.125, 0.012)),
        base_right=float(rng.normal(0.725, 0.02)),
        base_left=float(rng.normal(0.75, 0.02)),
        depth=float(np.clip(rng.normal(21.5 if male else 20.0, 1.6), 17, 27)),
        fat=float(np.clip(rng.gamma(3.0, 0.016), 0.01, 0.13)),
        rib_spacing=float(rng.normal(0.068, 0.0025)),
        rib_slope=float(rng.normal(1.0, 0.15)),
        heart=float(np.clip(rng.normal(0.97 + 0.0008 * (age - 50), 0.045), 0.85, 1.09)),
        knob=float(np.clip(rng.normal(0.85 + 0.004 * (age - 50), 0.1), 0.6, 1.15)),
        scoliosis=float(rng.normal(0.0, 0.006)),
        breast=0.0 if male else float(np.clip(rng.normal(0.6, 0.3), 0.1, 1.2)),
        clavicle=float(rng.normal(0.0, 0.012)),
        seed=int(rng.integers(2**31)),
    )


def sample_pose(rng: np.random.Generator, *, bedside: float) -> Pose:
    """A positioning; `bedside` is the share of AP films of patients in bed."""
    view = "AP" if rng.random() < bedside else "PA"
    lying = view == "AP"
    return Pose(
        view=view,
        scale=float(rng.normal(1.03 if lying else 1.0, 0.035)),
        across=float(rng.normal(0, 0.02 if lying else 0.01)),
        down=float(rng.normal(0.0, 0.015)),
        tilt=float(rng.normal(0, 0.03 if lying else 0.015)),
        breath=float(np.clip(rng.normal(0.3 if lying else 0.7, 0.15), 0, 1)),
        arms=float(rng.normal(-0.03 if lying else 0.02, 0.02)),
    )


@dataclass
class Chest:
    """Path lengths along every ray, and the lines that bound the anatomy. Findings change it in place."""

    body: Body
    pose: Pose
    x: Field  # [side, side] distance from the midline, positive to the patient's left, corrected for the pose
    y: Field  # [side, 1]
    side: int
    outer: Field  # [side, 1] lateral wall of the lungs
    lung: Field  # depth of lung, cm
    tissue: Field  # depth of soft tissue without lungs, cm
    bone: Field  # depth of bone, cm
    cage: Field  # the ribs' part of the bone
    vessels: Field  # depth of vessels inside the lungs, cm
    filled: Field  # share of the lung's air replaced by water, 0..1
    gas: Field  # share of the lung replaced by free gas, 0..1
    metal: Field  # opaque devices, in units of attenuation
    domes: dict[int, Field]  # [side, side] height of each diaphragm at every column
    texture: np.random.Generator
    boxes: list[tuple[str, Box]] = field(default_factory=list)

    def of_side(self, side: int) -> Field:
        """1 on one side of the midline, 0 on the other."""
        return step(self.x * side, 0.01)

    def fill(self, share: Field) -> None:
        """Replaces a share of what air is left by water."""
        self.filled = 1 - (1 - self.filled) * (1 - np.clip(share, 0, 1))

    def mark(self, finding: str, where: Field, *, above: float = 0.35) -> None:
        """Notes the box of what was drawn: where the field passes a share of its maximum."""
        peak = float(where.max())
        if peak <= 0:
            return
        drawn = where > above * peak
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        side = self.side
        box = (columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side)
        self.boxes.append((finding, tuple(float(edge) for edge in box)))  # type: ignore[arg-type]

    def mark_box(self, finding: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Notes a box given in the body's coordinates."""
        across, down = (
            np.clip(edge, 0, 1) for edge in self.to_image(np.array([x0, x0, x1, x1]), np.array([y0, y1, y0, y1]))
        )
        self.boxes.append((finding, (float(across.min()), float(down.min()), float(across.max()), float(down.max()))))

    def to_image(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Body coordinates to fractions of the image."""
        pose = self.pose
        down = (y - 0.5) * pose.scale + 0.5 + pose.down
        across = (x + _midline(self.body, pose, y)) * pose.scale + 0.5 + pose.across
        return across, down


def build_chest(body: Body, pose: Pose, side: int, *, seed: int) -> Chest:
    """The healthy chest of a patient on a grid of `side` pixels."""
    texture = np.random.default_rng(seed)
    centres = ((np.arange(side, dtype=np.float32) + 0.5) / side).astype(np.float32)
    y = ((centres - (0.5 + pose.down)) / pose.scale + 0.5)[:, None]
    x = (centres - (0.5 + pose.across))[None, :] / pose.scale - _midline(body, pose, y)
    x = np.ascontiguousarray(x, np.float32)
    distance = np.abs(x)
    outer = _outer(body, pose, y)
    domes = {side_: _diaphragm(body, pose, distance, side_) for side_ in (RIGHT, LEFT)}
    lung = _lungs(body, x, distance, y, outer, domes)
    cage, bone = _skeleton(body, x, distance, y, outer)
    empty = np.zeros_like(lung)
    return Chest(
        body=body,
        pose=pose,
        x=x,
        y=y,
        side=side,
        outer=outer,
        lung=lung,
        tissue=_tissue(body, pose, x, distance, y, domes, texture),
        bone=bone,
        cage=cage,
        vessels=empty.copy(),
        filled=empty.copy(),
        gas=empty.copy(),
        metal=empty.copy(),
        domes=domes,
        texture=texture,
    )


def _midline(body: Body, pose: Pose, y: FloatArray) -> FloatArray:
    """Where the spine runs: tilted as the patient leaned, curved as the patient is."""
    line: FloatArray = pose.tilt * (y - 0.5) + body.scoliosis * np.sin(y * 7.0)
    return line


def _outer(body: Body, pose: Pose, y: Field) -> Field:
    """The lateral wall: a dome at the apex, nearly straight below, drawn in a little at the base."""
    widest = 0.62
    above = np.clip((widest - y) / (widest - body.apex), 0, 1)
    below = np.clip((y - widest) / 0.4, 0, 1)
    shape = (1 - above**2.3) ** (1 / 2.3) * (1 - 0.10 * below**2)
    wall: Field = body.width * (0.97 + 0.04 * pose.breath) * shape
    return wall


def _diaphragm(body: Body, pose: Pose, distance: Field, side: int) -> Field:
    top = (body.base_right if side == RIGHT else body.base_left) + 0.09 * (pose.breath - 0.6)
    offset = (distance - 0.17) * (1 / 0.2)
    lateral = np.maximum(offset, 0)
    medial = np.minimum(offset, 0)
    height: Field = top + 0.085 * lateral * lateral * (1 + lateral) * 0.55 + 0.05 * medial * medial
    return height


def _lungs(body: Body, x: Field, distance: Field, y: Field, outer: Field, domes: dict[int, Field]) -> Field:
    inner = 0.018
    middle, half = (outer + inner) / 2, np.maximum((outer - inner) / 2, 1e-3)
    across = (distance - middle) / half
    profile = slab(across**2) * step(outer - 2 * inner, 0.02)
    top = np.clip((y - body.apex) * (1 / 0.35), 0, 1)
    depth = (body.depth * 0.72) * (0.5 + 0.5 * top * (2 - top))
    floor = domes[RIGHT] + (domes[LEFT] - domes[RIGHT]) * step(x, 0.08)
    above = step(floor - y, 0.012)
    recess = 0.16 * step(floor + 0.05 - y, 0.1)  # lung behind the dome
    lung: Field = profile * depth * np.maximum(above, recess)
    return lung


def _tissue(
    body: Body, pose: Pose, x: Field, distance: Field, y: Field, domes: dict[int, Field], rng: np.random.Generator
) -> Field:
    ys = np.array([-0.3, 0.0, 0.05, 0.09, 0.13, 0.18, 0.24, 0.34, 0.6, 0.85, 1.3], np.float32)
    neck, trunk = 0.105 + 0.3 * body.fat, body.width + 0.045 + body.fat
    widths = np.array(
        [neck * 1.15, neck, neck * 1.15, neck * 1.8, 0.36, 0.49, trunk + 0.06, trunk + 0.02, trunk, trunk, trunk + 0.02]
    )
    depths = np.array([11, 11.5, 12, 12.5, 14, 15.5, 17.5, body.depth, body.depth, body.depth + 1.5, body.depth + 2.5])
    width = _smooth(y, ys, widths)
    depth = _smooth(y, ys, depths)
    tissue = depth * slab((distance / width) ** 2)
    arm = (0.47 + pose.arms) + 0.30 * np.maximum(y - 0.22, 0) + 0.05 * y
    limb = 9.0 * dome(((distance - arm - 0.03) * (1 / (0.085 + 0.4 * body.fat))) ** 2)
    tissue = np.maximum(tissue, limb * step(y - 0.17, 0.12))
    if body.breast:
        size = 0.12 + 0.05 * body.breast
        bx, by = (distance - 0.2) / size, (y - (0.60 + 0.05 * body.breast)) / size
        fold = step(0.9 - by, 0.15)
        tissue += (3.2 * body.breast) * dome((bx**2 + np.where(by > 0, by**2 * 1.3, by**2 * 0.45)) * 0.8) * fold
    airway = step(0.37 - y, 0.03) * 1.9 * dome((x / 0.019) ** 2)
    slant = 0.9 * (y - 0.365)
    bronchi = 1.1 * dome(((distance - slant) / 0.013) ** 2)
    airway += bronchi * step(y - 0.362, 0.01) * step(0.41 - y, 0.02)
    tissue -= np.minimum(airway, tissue * 0.4)
    return tissue - _bowel_gas(x, y, domes, rng)


def _bowel_gas(x: Field, y: Field, domes: dict[int, Field], rng: np.random.Generator) -> Field:
    """The stomach's bubble under the left diaphragm and a few loops."""
    wide, tall, at = rng.uniform(0.04, 0.085), rng.uniform(0.02, 0.05), rng.uniform(0.13, 0.24)
    loops = rng.uniform(0, 1, (4, 4))
    present = rng.random() < 0.75
    below = y - domes[LEFT] - (0.02 + tall)
    gas = (6.0 * present) * dome(((x - at) / wide) ** 2 + (below / tall) ** 2)
    for across, down, size, strength in loops.tolist():
        radius = 0.02 + 0.03 * size
        gas += (1.6 * strength) * mound(
            ((x - (0.5 * across - 0.2)) / radius) ** 2 + ((y - (0.9 + 0.1 * down)) / radius) ** 2
        )
    return gas


def _skeleton(body: Body, x: Field, distance: Field, y: Field, outer: Field) -> tuple[Field, Field]:
    """The rib cage alone, and all bone without it."""
    return draw_ribs(body, distance, y, outer), _spine(body, x, y) + _shoulders(body, x, distance, y)


def draw_ribs(body: Body, distance: Field, y: Field, outer: Field, shift: Field | None = None) -> Field:
    """Depth of bone in the ribs, posterior and anterior arcs; `shift` moves them (in rib spacings) where one is broken.

    All ribs are drawn at once: a phase runs down the chest along the ribs' curves, and a rib lies at each whole number.
    """
    wall = outer + 0.012
    a = np.minimum(distance / np.maximum(wall, 0.05), 1.2)
    spacing = body.rib_spacing
    slope = body.rib_slope * (0.04 + 0.11 * np.clip(y, 0, 1))
    start = body.apex - 0.005
    a2 = a * a
    bend = slope * (a2 * a2 * 0.6 + a2 * 0.75 - 0.35 * a)
    posterior = (y - start - bend) / spacing
    if shift is not None:
        posterior = posterior + shift
    lateral = slope * 1.0
    inward = np.maximum(1 - a, 0)
    drop = 0.19 * np.sqrt(inward) * (0.45 + 0.55 * inward) + 0.02
    anterior = (y - start - lateral - drop) / spacing
    if shift is not None:
        anterior = anterior + shift
    within = step(1.03 - a, 0.06) * 1.35
    edge = 1 + 1.3 * np.clip((a - 0.86) * 7, 0, 1) ** 2
    back = _arcs(posterior, 0.24) * step(a - 0.07, 0.06) * _counted(posterior, 0, 10.6)
    front = _arcs(anterior, 0.28) * step(a - 0.36, 0.15) * _counted(anterior, -0.6, 6.6) * 0.6
    ribs: Field = (back + front) * within * edge * (0.85 - 0.003 * (body.age - 50))
    return ribs


def _arcs(phase: Field, half: float) -> Field:
    off = (phase - np.rint(phase)) * (1 / half)
    return tube(off, hollow=0.72) + 0.12 * dome(off * off)


def _counted(phase: Field, first: float, last: float) -> Field:
    return ((phase > first - 0.5) & (phase < last)).astype(np.float32)


def _spine(body: Body, x: Field, y: Field) -> Field:
    half = 0.034 + 0.010 * np.clip(y, 0, 1)
    across = (x + 0.0) / half
    level = y / (0.043 + 0.012 * np.clip(y, 0, 1))
    disc = 0.80 + 0.20 * step(np.abs(level - np.rint(level)) - 0.10, 0.2)
    column = 1.7 * dome(across**2) * disc
    pedicle = (np.abs(x) - 0.021) ** 2 * (1 / 0.007**2)
    up = (level - np.floor(level) - 0.55) ** 2 * (1 / 0.16**2)
    process = (x / 0.006) ** 2 + ((level - np.floor(level) - 0.75) / 0.22) ** 2
    spine: Field = column + 0.55 * dome(pedicle + up) + 0.5 * dome(process)
    return spine


def _shoulders(body: Body, x: Field, distance: Field, y: Field) -> Field:
    a = np.clip((distance - 0.025) * (1 / 0.36), -0.2, 1.3)
    axis = (body.apex + 0.075 + body.clavicle) - 0.055 * a - 0.018 * np.sin(a * 5.6)
    thick = 0.0135 + 0.006 * np.abs(a - 0.4)
    clavicle = tube((y - axis) / thick, hollow=0.7) * step(a, 0.03) * step(1.08 - a, 0.05) * 2.6
    blade_edge = 0.335 + 0.10 * (y - 0.3) + 0.35 * (y - 0.3) ** 2
    inside = step(distance - blade_edge, 0.008) * step(0.47 - distance, 0.06)
    tall = step(y - 0.13, 0.03) * step(0.43 - y - (distance - blade_edge) * 1.1, 0.02)
    rim = np.maximum(1 - np.abs(distance - blade_edge - 0.005) * (1 / 0.008), 0)
    blade = (0.28 * inside + 0.5 * rim) * tall
    head = 2.2 * dome(((distance - 0.46) / 0.05) ** 2 + ((y - 0.175) / 0.05) ** 2)
    shaft_x = 0.475 + 0.33 * np.maximum(y - 0.2, 0)
    shaft = 2.0 * tube((distance - shaft_x) * (1 / 0.022), hollow=0.6) * step(y - 0.19, 0.03)
    spine_of_scapula = 0.9 * tube((y - 0.135 - 0.35 * (0.46 - distance)) * (1 / 0.011))
    ridge = spine_of_scapula * step(distance - 0.34, 0.03) * step(0.47 - distance, 0.03)
    shoulders: Field = clavicle + blade + np.maximum(head, shaft) + ridge
    return shoulders


@dataclass(frozen=True)
class Silhouette:
    """The heart and great vessels; findings ask for other sizes."""

    heart: float = 1.0
    heart_tall: float = 1.0
    mediastinum: float = 1.0
    knob: float = 1.0
    hilum: float = 1.0
    shift: float = 0.0


def usual_silhouette(body: Body, pose: Pose) -> Silhouette:
    """What the patient's heart and aorta look like in this projection, without disease."""
    near = 1.07 if pose.view == "AP" else 1.0  # the heart lies further from the detector
    return Silhouette(heart=body.heart * near, mediastinum=near, knob=body.knob * near)


def place_mediastinum(chest: Chest, form: Silhouette) -> None:
    """Puts the heart, the great vessels and the hila in front of the lungs; they take the place of air."""
    x, y = chest.x - form.shift, chest.y
    wide = 0.165 * form.heart
    tall = 0.130 * form.heart_tall
    top = chest.body.base_left + 0.09 * (chest.pose.breath - 0.6)
    cy = top - 0.105
    u, v = x - (0.058 * form.heart), y - cy
    turned, upright = u * 0.82 + v * 0.57, v * 0.82 - u * 0.57
    ventricle = 11.5 * dome((turned / wide) ** 2 + (upright / tall) ** 2)
    atrium = 9.0 * dome(((x + 0.040) / (0.072 * form.heart)) ** 2 + ((y - cy) / (tall * 0.95)) ** 2)
    ys = np.array([-0.3, 0.05, 0.16, 0.25, 0.36, 0.45, 0.56, 0.75, 1.3], np.float32)
    middle = form.mediastinum
    right = _smooth(
        y, ys, np.array([0.05, 0.055, 0.062 * middle, 0.066 * middle, 0.062 * middle, 0.062, 0.07, 0.06, 0.05])
    )
    left = _smooth(
        y, ys, np.array([0.05, 0.05, 0.055 * middle, 0.052 * middle, 0.074 * middle, 0.098, 0.12, 0.09, 0.06])
    )
    band = 13.0 * dome(np.where(x < 0, x / right, x / left) ** 2)
    radius = 0.036 * form.knob
    knob = 9.0 * dome(((x - (0.042 * middle)) ** 2 + ((y - 0.30) * 0.9) ** 2) / radius**2)
    descending = 5.5 * dome(((x - (0.030 * form.knob + 0.006)) / 0.028) ** 2) * step(y - 0.3, 0.04)
    hila = np.zeros_like(chest.lung)
    for side, at in ((RIGHT, 0.435), (LEFT, 0.41)):
        hx, hy = (
            (x * side - 0.082) / (0.042 * form.hilum),
            (y - at) / (0.075 * form.hilum),
        )
        hila += 3.0 * mound(hx * hx + hy * hy)
    solid = np.maximum(np.maximum(ventricle, atrium), np.maximum(np.maximum(band, knob), descending))
    chest.lung = np.maximum(chest.lung - solid - hila, chest.lung * 0.04)


def draw_vessels(chest: Chest, *, strength: float = 1.0, upper: float = 0.0) -> None:
    """Branching vessels from both hila; `upper` widens those of the upper lobes (cephalisation).

    A branch is a string of points whose mass is its cross-section; wide ones go to a coarse grid, thin ones to a fine.
    """
    rng = np.random.default_rng(chest.body.seed)
    trees = [_branches(rng, half, at) for half, at in ((RIGHT, 0.43), (LEFT, 0.41))]
    x, y, width, length = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    width = width * (1 + upper * (y < 0.4))
    across, down = chest.to_image(x, y)
    mass = strength * 105.0 * width * width * length
    previous = np.inf
    for nodes, narrowest in ((72, 0.0115), (128, 0.0065), (256, 0.0)):
        chosen = (width >= narrowest) & (width < previous)
        previous = narrowest
        grid = min(nodes, chest.side)
        chest.vessels += spread(deposit(across[chosen], down[chosen], mass[chosen], grid), chest.side)


def _branches(rng: np.random.Generator, half: int, at: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Points along one lung's vessel tree: x, y, width there, and the length that each point stands for."""
    trunks, steps = 10, 10
    angle = np.linspace(-1.4, 1.3, trunks) + rng.normal(0, 0.12, trunks)
    px, py = np.full(trunks, 0.062), at + 0.04 * np.linspace(-1, 1, trunks)
    width = 0.019 * rng.uniform(0.7, 1.2, trunks)
    length = rng.uniform(0.045, 0.08, trunks)
    parts: list[tuple[Floats, Floats, Floats, Floats]] = []
    t = (np.arange(steps) + 0.5) / steps
    for level in range(6):
        bend = rng.normal(0, 0.35, len(angle))
        heading = angle[:, None] + bend[:, None] * t
        piece = (length / steps)[:, None]
        xs = px[:, None] + np.cumsum(np.cos(heading) * piece, axis=1)
        ys = py[:, None] + np.cumsum(np.sin(heading) * piece, axis=1)
        taper = width[:, None] * (1 - 0.2 * t)
        parts.append((xs.ravel(), ys.ravel(), taper.ravel(), np.broadcast_to(piece, xs.shape).ravel()))
        forks = 2 if level in (0, 1, 3) else 1
        turn = rng.uniform(0.15, 0.6, (len(angle), forks)) * np.where(np.arange(forks) % 2, 1, -1)
        if forks == 1:
            turn = rng.normal(0, 0.2, (len(angle), 1))
        angle = (heading[:, -1:] + turn).ravel()
        px, py = np.repeat(xs[:, -1], forks), np.repeat(ys[:, -1], forks)
        width = np.repeat(width * 0.8, forks) * (0.82 if forks > 1 else 1.0)
        length = np.repeat(length, forks) * rng.uniform(0.75, 1.05, len(px))
    x, y, w, reach = (np.concatenate(column) for column in zip(*parts, strict=True))
    return half * x, y, w, reach


@dataclass(frozen=True)
class Line:
    """A wire or tube through body points; width 0: the outline of a solid piece. strength: what it adds, at most."""

    points: Sequence[Point]
    width: float
    strength: float


def draw_lines(chest: Chest, lines: Sequence[Line]) -> Field:
    """What the lines add along each ray, drawn on one fine canvas and averaged down."""
    over = max(1, CANVAS // chest.side)
    side = over * chest.side
    strongest = max(abs(line.strength) for line in lines)
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    for line in lines:
        across, down = chest.to_image(*np.asarray(line.points, np.float64).T)
        pixels = np.stack([across, down], axis=1).ravel() * side
        tone = round(255 * line.strength / strongest)
        if line.width:
            pen.line(pixels.tolist(), fill=tone, width=max(1, round(line.width * side)), joint="curve")
        else:
            pen.polygon(pixels.tolist(), fill=tone)
    small = canvas.reduce(over) if over > 1 else canvas
    drawn: Field = np.asarray(small, np.float32) * (strongest / 255)
    return drawn


def mottle(chest: Chest, *, amount: float = 1.0) -> None:
    """The fine texture of small vessels and interstitium."""
    grain = clouds(chest.texture, chest.side, scale=0.045, octaves=3, roughness=0.75)
    chest.vessels += (0.3 * amount) * grain


def _smooth(y: Field, at: Field, values: NDArray[np.float64]) -> Field:
    """A curve through control points with rounded corners, at each row."""
    dense = np.linspace(-0.4, 1.4, 361)
    curve = np.interp(dense, at, values)
    kernel = np.hanning(25)
    padded = np.pad(curve, 12, mode="edge")
    rounded = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return np.interp(y.ravel(), dense, rounded).astype(np.float32)[:, None]


def redraw_ribs(chest: Chest, shift: Field) -> None:
    """Draws the ribs again, displaced where they are broken."""
    chest.cage = draw_ribs(chest.body, np.abs(chest.x), chest.y, chest.outer, shift)
