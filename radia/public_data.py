"""The public collections of chest radiographs, read from their own tables: what a CheXpert model is made of.

`chexpert:DIR` (CheXpert-v1.0 and -small), `nih:DIR` (ChestX-ray14), `mimic:DIR` (MIMIC-CXR-JPG), `padchest:DIR`. DIR is
the folder that holds the collection's table. Frontal views only; labels under our 14 findings, blank where a collection
does not label one. Nothing is downloaded: each collection has its own terms of use.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radia.errors import LabelError, UnmatchedIds
from radia.findings import FINDINGS
from radia.images import letterbox
from radia.workspace import written_whole

if TYPE_CHECKING:
    import pandas as pd

TRAIN, VALIDATION, TEST = "train", "validation", "test"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PublicSet:
    """One row an image: where it lies, its patient, its side of the split, its labels [n, 14] of 1, 0, -1 and NaN."""

    name: str
    ids: NDArray[np.str_]
    paths: tuple[Path, ...]
    patients: NDArray[np.str_]
    split: NDArray[np.str_]
    labels: NDArray[np.float64]


def read_public(where: str) -> PublicSet:
    """The collection that `where` names, as `name:DIR`. Raises LabelError where its tables are not as expected."""
    name, _, folder = where.partition(":")
    if name not in COLLECTIONS or not folder:
        raise LabelError(f"unknown collection {name!r}; expected one of: {', '.join(f'{n}:DIR' for n in COLLECTIONS)}")
    table = COLLECTIONS[name](Path(folder)).sort_values("id", ignore_index=True)
    if table.empty:
        raise LabelError(f"{name}: the tables in {folder} name no frontal image")
    if table["id"].duplicated().any():
        raise UnmatchedIds(f"{name}: an image stands twice in the tables in {folder}")
    return PublicSet(
        name,
        table["id"].to_numpy(str),
        tuple(map(Path, table["path"])),
        table["patient"].to_numpy(str),
        table["split"].to_numpy(str),
        table[list(FINDINGS)].to_numpy(np.float64),
    )


# --- pixels ---------------------------------------------------------------------------------------------------------


class PackedImages:
    """uint8 images of a public set in one memory-mapped file, made once: reading JPEG again each epoch is too slow."""

    def __init__(self, folder: Path) -> None:
        self.ids: list[str] = json.loads((folder / "ids.json").read_text())
        self._row = {name: row for row, name in enumerate(self.ids)}
        self._pixels = np.load(folder / "pixels.npy", mmap_mode="r")

    @property
    def side(self) -> int:
        """Pixels along each side."""
        return int(self._pixels.shape[1])

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """The images of these ids, [n, side, side]. Raises UnmatchedIds."""
        try:
            rows = [self._row[name] for name in ids]
        except KeyError as error:
            raise UnmatchedIds("an image that was not packed was asked for: pack the collection again") from error
        return np.asarray(self._pixels[rows])


def pack(
    public: PublicSet, folder: Path, *, side: int, workers: int = 2, progress: Progress | None = None
) -> PackedImages:
    """Decodes every image once into `folder`, letterboxed to `side`. A folder of the same set and side is kept.

    Raises LabelError, naming how many, where images are missing.
    """
    key = hashlib.sha256("\0".join([str(side), *public.ids]).encode()).hexdigest()
    if (folder / "key.txt").is_file() and (folder / "key.txt").read_text() == key:
        return PackedImages(folder)
    missing = [path for path in public.paths if not path.is_file()]
    if missing:
        raise LabelError(f"{public.name}: {len(missing)} of {len(public.paths)} images are missing ({missing[0]} ...)")
    with written_whole(folder) as partial:
        partial.mkdir()
        shape = (len(public.ids), side, side)
        pixels = np.lib.format.open_memmap(partial / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(workers) as pool:
            for row, image in enumerate(pool.map(lambda path: letterbox(read_gray_file(path), side), public.paths)):
                pixels[row] = image
                if progress:
                    progress(row + 1, len(pixels))
        pixels.flush()
        (partial / "ids.json").write_text(json.dumps(public.ids.tolist()))
        (partial / "key.txt").write_text(key)
    return PackedImages(folder)


def read_gray_file(path: Path) -> NDArray[np.float32]:
    """Gray [rows, columns] in 0..1 of a JPEG or PNG; 16-bit files span their own least to greatest value."""
    from PIL import Image

    with Image.open(path) as image:
        if image.mode.startswith("I"):
            deep = np.asarray(image, dtype=np.float32)
            low, high = float(deep.min()), float(deep.max())
            return (deep - low) / max(high - low, 1.0)
        return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)


# --- the collections ------------------------------------------------------------------------------------------------


def _chexpert(folder: Path) -> pd.DataFrame:
    """Irvin et al. 2019: any of its tables; paths start with the collection's own folder name.

    The radiologists' labels of the validation and test parts are also given out as val_labels.csv and test_labels.csv.
    """
    files = (
        (("train.csv",), TRAIN),
        (("valid.csv", "val_labels.csv"), VALIDATION),
        (("test.csv", "test_labels.csv"), TEST),
    )
    parts = [
        _table(folder, names, ["Path", *FINDINGS]).assign(split=side)
        for names, side in files
        if any((folder / name).is_file() for name in names)
    ]
    if not parts:
        raise LabelError(f"{folder} holds none of: {', '.join(name for names, _ in files for name in names)}")
    table = _concat(parts)
    view = (
        table["Frontal/Lateral"].eq("Frontal") if "Frontal/Lateral" in table else table["Path"].str.contains("frontal")
    )
    table = table[view]
    inside = table["Path"].str.split("/", n=1).str[1]
    full = not (folder / "val").is_dir()  # the folder's name where the two parts were given out alone
    return table.assign(
        id=inside,
        path=[str(folder / (name if full else name.replace("valid/", "val/", 1))) for name in inside],
        patient=table["Path"].str.extract(r"(patient\d+)", expand=False),
    )


def _nih(folder: Path) -> pd.DataFrame:
    """Wang et al. 2017: the official test list; a tenth of the other patients validates."""
    table = _table(
        folder, ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"], ["Image Index", "Finding Labels", "Patient ID"]
    )
    named = [set(text.split("|")) for text in table["Finding Labels"]]
    labels = {finding: [float(bool(words & words_of)) for words in named] for finding, words_of in _NIH.items()}
    unlabelled = dict.fromkeys([finding for finding in FINDINGS if finding not in _NIH], np.nan)
    patients = table["Patient ID"].astype(str)
    split = _by_patient(patients, test=0.0 if (folder / "test_list.txt").is_file() else 0.2)
    if (folder / "test_list.txt").is_file():
        official = set((folder / "test_list.txt").read_text().split())
        split = [TEST if name in official else side for name, side in zip(table["Image Index"], split, strict=True)]
    found = {path.name: path for path in folder.glob("images*/**/*.png")}
    return table.assign(
        id=table["Image Index"],
        path=[str(found.get(name, folder / "images" / name)) for name in table["Image Index"]],
        patient=patients,
        split=split,
        **labels,
        **unlabelled,
    )


def _mimic(folder: Path) -> pd.DataFrame:
    """Johnson et al. 2019, MIMIC-CXR-JPG: CheXpert labels by study, official split, frontal by view position."""
    keys = ["subject_id", "study_id"]
    labels = _table(folder, _gz("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.1.0-chexpert.csv"), [*keys, *FINDINGS])
    facts = _table(folder, _gz("mimic-cxr-2.0.0-metadata.csv"), ["dicom_id", "ViewPosition", *keys])
    split = _table(folder, _gz("mimic-cxr-2.0.0-split.csv"), ["dicom_id", "split"])
    table = facts[facts["ViewPosition"].isin(["PA", "AP"])].merge(labels, on=keys).merge(split[["dicom_id", "split"]])
    paths = [
        str(folder / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}" / f"{image}.jpg")
        for image, subject, study in zip(table["dicom_id"], table["subject_id"], table["study_id"], strict=True)
    ]
    return table.assign(
        id=table["dicom_id"],
        path=paths,
        patient=table["subject_id"].astype(str),
        split=table["split"].replace({"validate": VALIDATION}),
    )


def _padchest(folder: Path) -> pd.DataFrame:
    """Bustos et al. 2020: lists of labels in English; a tenth of the patients validates and a tenth tests."""
    table = _table(
        folder,
        _gz("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PADCHEST_chest_x_ray_images_labels_160K.csv"),
        ["ImageID", "PatientID", "Projection", "Labels"],
    )
    table = table[table["Projection"].isin(["PA", "AP", "AP_horizontal"]) & table["Labels"].notna()]
    named = [_listed(text) for text in table["Labels"]]
    labels = {
        finding: [float(any(word.startswith(start) for word in words for start in starts)) for words in named]
        for finding, starts in _PADCHEST.items()
    }
    labels["No Finding"] = [float(words == {"normal"}) for words in named]
    unlabelled = dict.fromkeys([finding for finding in FINDINGS if finding not in labels], np.nan)
    places = table["ImageDir"].astype(str) if "ImageDir" in table else [""] * len(table)
    paths = [
        str(folder / place / image if (folder / place / image).is_file() else folder / image)
        for place, image in zip(places, table["ImageID"], strict=True)
    ]
    patients = table["PatientID"].astype(str)
    split = _by_patient(patients, test=0.1)
    return table.assign(id=table["ImageID"], path=paths, patient=patients, split=split, **labels, **unlabelled)


COLLECTIONS: dict[str, Callable[[Path], Any]] = {
    "chexpert": _chexpert,
    "nih": _nih,
    "mimic": _mimic,
    "padchest": _padchest,
}

_NIH: dict[str, set[str]] = {
    "No Finding": {"No Finding"},
    "Cardiomegaly": {"Cardiomegaly"},
    "Lung Opacity": {"Infiltration", "Consolidation", "Pneumonia", "Atelectasis", "Edema", "Mass", "Nodule"},
    "Lung Lesion": {"Mass", "Nodule"},
    "Edema": {"Edema"},
    "Consolidation": {"Consolidation"},
    "Pneumonia": {"Pneumonia"},
    "Atelectasis": {"Atelectasis"},
    "Pneumothorax": {"Pneumothorax"},
    "Pleural Effusion": {"Effusion"},
    "Pleural Other": {"Pleural_Thickening"},
}
"""What NIH's labels say of a finding. Enlarged Cardiomediastinum, Fracture, Support Devices are not labelled there."""

_PADCHEST: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("mediastinal enlargement", "superior mediastinal enlargement"),
    "Cardiomegaly": ("cardiomegaly",),
    "Lung Opacity": (
        "infiltrates", "alveolar pattern", "interstitial pattern", "ground glass", "increased density", "consolidation",
        "atelectasis", "pulmonary edema", "pneumonia", "nodule", "multiple nodules", "mass", "pulmonary mass",
    ),
    "Lung Lesion": ("nodule", "multiple nodules", "pulmonary mass", "mass", "cavitation"),
    "Edema": ("pulmonary edema", "kerley lines", "vascular redistribution"),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Atelectasis": ("atelectasis", "laminar atelectasis", "lobar atelectasis", "total atelectasis"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Pleural Effusion": ("pleural effusion", "loculated pleural effusion", "hydropneumothorax", "loculated fissural"),
    "Pleural Other": ("pleural thickening", "apical pleural thickening", "pleural plaques", "calcified pleural"),
    "Fracture": ("fracture", "rib fracture", "vertebral fracture", "clavicle fracture", "callus rib"),
    "Support Devices": (
        "pacemaker", "dual chamber device", "single chamber device", "dai", "endotracheal tube", "nsg tube",
        "chest drain tube", "central venous catheter", "tracheostomy tube", "electrical device", "reservoir",
    ),
}  # fmt: skip
"""How the words begin by which PadChest says that a finding is present."""


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(folder: Path, names: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise LabelError(f"{folder} holds none of: {', '.join(names)}")
    table = pd.read_csv(path, low_memory=False)
    missing = [column for column in columns if column not in table]
    if missing:
        raise LabelError(f"{path} lacks the columns {', '.join(missing)}")
    return table


def _concat(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def _gz(*names: str) -> list[str]:
    return [f"{name}{ending}" for name in names for ending in ("", ".gz")]


def _listed(text: str) -> set[str]:
    """PadChest writes a Python list of words; read as a literal, never evaluated."""
    try:
        words = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise LabelError("PadChest: a cell of Labels is not a list of words") from error
    return {str(word).strip().lower() for word in words} - {""}


def _by_patient(patients: Iterable[str], *, test: float) -> list[str]:
    """A side by a hash of the patient: the same for all of a patient's images and in every run."""
    sides = []
    for patient in patients:
        place = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
        sides.append(TEST if place < test else VALIDATION if place < test + 0.1 else TRAIN)
    return sides
