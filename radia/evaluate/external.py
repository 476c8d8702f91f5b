"""Sets of images from elsewhere on which models are judged too: CheXpert's and NIH's, with what people read and drew.

Thresholds stay those of the hospital's own validation side. CheXpert's labels and readers speak of studies: a study's
probability is then the largest of its images, as in CheXpert's own evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia import metrics
from radia.errors import LabelError, UnmatchedIds
from radia.evaluate.candidate import evaluate_candidate
from radia.evaluate.files import reader_matrix
from radia.findings import FINDINGS, UNCERTAIN
from radia.localisation import Region, read_regions
from radia.public_data import TEST, VALIDATION, PublicSet, read_public
from radia.tables import read_table

if TYPE_CHECKING:
    from radia.settings import EvaluateSettings, ExternalSettings

REGION_FILES = ("BBox_List_2017.csv", "gt_segmentations_test.json", "gt_segmentations_val.json")
"""Boxes and masks that are looked for beside a collection's own tables."""


@dataclass(frozen=True)
class ExternalSet:
    """The judged part of a public collection.

    units [n]: the image or study that each image's row of results belongs to; readers: {name: decisions of 1, 0, NaN by
    unit, in the order of `unit_names`}; regions: by image id.
    """

    name: str
    public: PublicSet
    units: NDArray[np.str_]
    readers: dict[str, metrics.Floats]
    regions: tuple[Region, ...]

    @property
    def unit_names(self) -> NDArray[np.str_]:
        """Each unit once, sorted."""
        return np.unique(self.units)


def open_external(name: str, settings: ExternalSettings) -> ExternalSet:
    """Reads the tables of one set; no image is opened. Raises LabelError, UnmatchedIds, BadLabelValue."""
    whole = read_public(settings.images)
    side = TEST if settings.part == "test" else VALIDATION
    rows = whole.split == side
    if not rows.any():
        raise LabelError(f"{name}: {settings.images} has no image on its {side} side")
    public = _part(whole, rows)
    units = np.array([_study(image) for image in public.ids]) if public.name == "chexpert" else public.ids
    folder = Path(settings.images.partition(":")[2])
    if public.name == "nih" and side == TEST and not (folder / "test_list.txt").is_file():
        raise LabelError(f"{name}: {folder} lacks test_list.txt, without which the official split is not known")
    readers = _readers(Path(settings.readers), np.unique(units)) if settings.readers else {}
    return ExternalSet(name, public, units, readers, tuple(regions_of(public, folder, settings.regions)))


def regions_of(public: PublicSet, folder: Path, given: str = "") -> list[Region]:
    """The regions of a collection's images, from the file given or those found beside its tables. Raises LabelError."""
    beside = [Path(given)] if given else [folder / file for file in REGION_FILES if (folder / file).is_file()]
    return _of_images([region for file in beside for region in read_regions(file)], public.ids)


def evaluate_external(
    found: ExternalSet,
    base: metrics.Floats,
    candidate: metrics.Floats,
    *,
    base_thresholds: Mapping[str, float],
    candidate_thresholds: Mapping[str, float],
    settings: EvaluateSettings,
    seed: int,
) -> dict[str, Any]:
    """The dict of `evaluate_candidate` for an external set, from probabilities [n images, 14].

    Uncertain and blank labels are left out; there are no subgroups.
    """
    codes = np.searchsorted(found.unit_names, found.units)
    first = np.unique(codes, return_index=True)[1]
    truth = found.public.labels[first].copy()
    truth[truth == UNCERTAIN] = np.nan
    return evaluate_candidate(
        truth,
        _largest(base, codes, len(first)),
        _largest(candidate, codes, len(first)),
        base_thresholds=base_thresholds,
        candidate_thresholds=candidate_thresholds,
        patients=found.public.patients[first],
        groups=pd.DataFrame(index=range(len(first))),
        settings=settings,
        seed=seed,
        readers=found.readers,
    )


def _largest(values: metrics.Floats, codes: NDArray[np.intp], count: int) -> metrics.Floats:
    out = np.full((count, values.shape[1]), -np.inf)
    np.maximum.at(out, codes, values)
    return out


def _part(whole: PublicSet, rows: NDArray[np.bool_]) -> PublicSet:
    paths = tuple(path for path, kept in zip(whole.paths, rows, strict=True) if kept)
    return PublicSet(whole.name, whole.ids[rows], paths, whole.patients[rows], whole.split[rows], whole.labels[rows])


def _study(image: str) -> str:
    """`patient64741/study1` of `test/patient64741/study1/view1_frontal.jpg`, or of `CheXpert-v1.0/test/…/study1`."""
    parts = image.split("/")
    at = next((k for k, part in enumerate(parts) if part.startswith("patient")), 0)
    return "/".join(parts[at : at + 2])


def _readers(folder: Path, units: NDArray[np.str_]) -> dict[str, metrics.Floats]:
    """Each reader's decisions [units, 14] by the name of the file; findings that a reader did not read are NaN."""
    readers = {}
    for path in sorted(folder.glob("*.csv")):
        table = read_table(path)
        if not table.index.isin(units).any():
            table.index = table.index.map(_study)
        if table.index.has_duplicates:
            raise UnmatchedIds(f"{path.name} names a study more than once: each must stand once")
        missing = int((~np.isin(units, table.index)).sum())
        if missing:
            raise UnmatchedIds(f"{path.name}: {missing} of {len(units)} ids of the set are missing")
        readers[path.stem] = reader_matrix(table.loc[units.tolist()], FINDINGS, path.name)
    if not readers:
        raise LabelError(f"{folder.name}/ has no CSV of a reader: expected one file a reader")
    return readers


def _of_images(regions: Sequence[Region], ids: NDArray[np.str_]) -> list[Region]:
    """The regions of images of the set, under the ids they have there (CheXlocalize writes `patient1_study1_view1`)."""
    known = {str(image): str(image) for image in ids}
    known |= {str(image).partition("/")[2].rpartition(".")[0].replace("/", "_"): str(image) for image in ids}
    return [Region(known[r.image], r.finding, r.boxes, r.mask, r.shape) for r in regions if r.image in known]
