"""Films of the embedded hospital to try the demo with: real DICOM files of nobody, at twelve bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from radia.synthetic.hospital import Study

SIDE = 768
STUDIES, SEED = 80, 7
SHOWN = ("Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Consolidation", "Support Devices", "No Finding")
COUNT = len(SHOWN)


@dataclass(frozen=True)
class Example:
    """content: a DICOM file. findings: what is drawn in it. boxes: (finding, x0, y0, x1, y1 in parts of the film).

    text: where a name is burned into the pixels (x0, y0, x1, y1), or None.
    """

    content: bytes
    findings: tuple[str, ...]
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...]
    text: tuple[int, int, int, int] | None


@lru_cache(maxsize=COUNT)
def example(number: int) -> Example:
    """One of them, from 1. The first has an invented patient's name in its pixels, as films from old archives do."""
    from radia.synthetic.headers import burn_in
    from radia.synthetic.hospital import encode_exam
    from radia.synthetic.phantom import radiograph
    from radia.synthetic.population import populations

    study = _chosen()[number - 1]
    look = populations()[study.exam.site].look
    drawn = radiograph(study.body, study.pose, study.signs, look, side=SIDE, seed=study.seed)
    exam = replace(study.exam, syntax="explicit", bits=12, traps=())
    picture = np.ascontiguousarray(drawn.pixels, np.float32)
    text = burn_in(picture, exam, np.random.default_rng(SEED)) if number == 1 else None
    return Example(encode_exam(exam, picture), tuple(sign.finding for sign in study.signs), drawn.boxes, text)


@lru_cache(maxsize=1)
def _chosen() -> tuple[Study, ...]:
    """For each of SHOWN the film with the fewest findings beside it."""
    from radia.synthetic.hospital import plan_hospital

    studies = sorted(plan_hospital(STUDIES, SEED), key=lambda study: len(study.signs))
    return tuple(
        next(study for study in studies if (study.signs[0].finding if study.signs else "No Finding") == finding)
        for finding in SHOWN
    )
