"""Where a base model comes from: one string names it.

Not here: `mlflow:` names, which radia.registry turns into a local folder first. Imports no orchestration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from radia.findings import FINDINGS
from radia.model import BACKBONES, Checkpoint, ChestModel, Preprocessing, build, describe, load_checkpoint

RANDOM = "random"


@dataclass(frozen=True)
class Base:
    """A model to start from, and what is known of it (where it comes from, its licence, what its head lacks)."""

    model: ChestModel
    checkpoint: Checkpoint


def resolve(
    name: str,
    *,
    backbone: str = "densenet121",
    findings: tuple[str, ...] = FINDINGS,
    side: int | None = None,
    seed: int = 0,
) -> Base:
    """The base that `name` stands for: `random`, or the folder of a RADIA checkpoint.

    backbone, side, seed: for bases that do not say so themselves. Raises CheckpointError.
    """
    if name == RANDOM:
        preprocessing = Preprocessing(side or BACKBONES[backbone].side) if backbone in BACKBONES else None
        model = build(backbone, findings, preprocessing=preprocessing, seed=seed)
        return Base(model, describe(model, source=RANDOM, initialised=findings))
    model, checkpoint = load_checkpoint(Path(name), findings=findings)
    return Base(model, checkpoint)
