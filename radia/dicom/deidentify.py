"""De-identification of files and of whole trees.

`deidentify_file` turns the bytes of one file into the bytes of a clean one, or refuses. `deidentify_tree` does so for
every file of a folder, over processes, and keeps the account. What each element means is in `clean`, pixels are in
`frames`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom._uid_dict import UID_dictionary

from radia import digests
from radia.dicom import container
from radia.dicom.burned_in import find_text
from radia.dicom.clean import Cleaner
from radia.dicom.container import PIXEL_DATA, Dataset, Element
from radia.dicom.crosswalk import Crosswalk, Origin
from radia.dicom.frames import CleanPixels, clean_pixels
from radia.dicom.harvest import harvest
from radia.dicom.identifiers import Identifiers
from radia.dicom.profile import Profile, table_sha256
from radia.dicom.pseudonyms import Pseudonymizer, normal_form
from radia.dicom.verify import verify
from radia.errors import KeyFileError, RadiaError, Reason, Refusal, StorageFull
from radia.settings import DeidentifySettings, ScaleSettings
from radia.workers import each
from radia.workspace import written_whole

_JOURNAL = ".outcomes.jsonl"
_FINGERPRINT = "key-fingerprint.txt"


@dataclass
class Outcome:
    """What became of one file. No field can hold a value of the source."""

    source_sha256: str
    outcome: str = "refused"
    reason: str = ""
    output: str = ""
    patient: str = ""
    study: str = ""
    image: str = ""
    accession: str = ""
    boxes: list[list[int]] = field(default_factory=list)
    actions: str = "{}"
    table_sha256: str = ""
    profile: str = ""
    key_fingerprint: str = ""
    detail: str = ""


Done = tuple[Outcome, str]  # an outcome and, of a clean file, its sealed line for the crosswalk

COLUMNS = tuple(column.name for column in fields(Outcome))


@dataclass(frozen=True)
class CleanFile:
    """A clean file's pieces, ready to be written one after the other, and its account."""

    pieces: list[container.Buffer]
    outcome: Outcome
    origin: Origin


_NO_PIXELS = CleanPixels(container.EXPLICIT, Element(PIXEL_DATA, "OW"), [])


class Engine:
    """One key and one profile, ready to clean files."""

    def __init__(self, key: bytes, settings: DeidentifySettings) -> None:
        self.pseudonymizer = Pseudonymizer(key)
        self.profile = Profile(settings)
        self.settings = settings
        self.mark = (self.profile.name, table_sha256())

    def refused(self, digest: str, reason: Reason, detail: str = "") -> Outcome:
        """The account of a file that cannot be used."""
        return self._signed(Outcome(digest, reason=reason.value, detail=detail))

    def _signed(self, outcome: Outcome) -> Outcome:
        outcome.profile, outcome.table_sha256 = self.mark
        outcome.key_fingerprint = self.pseudonymizer.fingerprint
        return outcome

    def deidentify_file(self, raw: bytes, digest: str) -> CleanFile:
        """A clean file in place of the bytes of another. Raises Refusal, which quotes nothing of the file."""
        source = container.parse(raw)
        dataset = source.dataset
        image = _is_image(dataset, self.profile)
        outcome = self._names(dataset, digest)
        identifiers = harvest(dataset, self.profile)
        cleaner = Cleaner(self.profile, self.pseudonymizer, outcome.patient, identifiers)
        kept = cleaner.clean(dataset, pixels=image)
        pixels = clean_pixels(source, identifiers, look=self.settings.clean_pixels) if image else _NO_PIXELS
        for element in pixels.changed:
            kept.elements[element.tag] = element
        if self.settings.clean_graphics:
            _keep_overlays(dataset, kept, identifiers)
        sop_class, sop_instance = dataset.text(0x00080016), kept.text(0x00080018)
        pieces: list[container.Buffer] = [
            container.encode_header(sop_class, sop_instance, pixels.syntax),
            container.encode(kept),
        ]
        if image:
            pieces += container.encode_element(pixels.element)
        methods = [code for code, _ in self.profile.methods(pixels=image)]
        shown = pixels.element if image else None
        verify(pieces, shown, identifiers, self.profile, made=cleaner.made, methods=methods)
        outcome.outcome, outcome.boxes = "clean", [box.as_list() for box in pixels.boxes]
        outcome.actions = json.dumps(cleaner.actions, sort_keys=True)
        outcome.output = f"{outcome.patient}/{outcome.study}/{outcome.image}.dcm"
        return CleanFile(pieces, self._signed(outcome), _origin(dataset))

    def _names(self, dataset: Dataset, digest: str) -> Outcome:
        patient_id, issuer = _text(dataset, 0x00100020), _text(dataset, 0x00100021)
        if not normal_form(patient_id):
            raise Refusal(Reason.NO_PATIENT, "the file holds no patient identifier")
        study, instance = dataset.text(0x0020000D), dataset.text(0x00080018)
        if not study or not instance or not dataset.text(0x00080016):
            raise Refusal(Reason.UNREADABLE, "no study, class or instance UID")
        names = self.pseudonymizer
        return Outcome(
            digest,
            patient=names.patient(patient_id, issuer),
            study=names.study(study),
            image=names.image(instance),
            accession=names.accession(_text(dataset, 0x00080050)),
        )


def _origin(dataset: Dataset) -> Origin:
    patient, issuer, accession = (_text(dataset, tag) for tag in (0x00100020, 0x00100021, 0x00080050))
    return Origin(patient, issuer, accession, dataset.text(0x0020000D), dataset.text(0x00080018))


def _text(dataset: Dataset, tag: int) -> str:
    """An identifier as text: declared character sets differ, its bytes do not."""
    element = dataset.elements.get(tag)
    if element is None or element.items is not None or element.fragments is not None:
        return ""
    raw = element.raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


_REPORT, _PRESENTATION = "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11."


def _is_image(dataset: Dataset, profile: Profile) -> bool:
    """Whether there are pixels to clean. Structured reports and presentation states have none, and an option each that
    says how they are cleaned (PS3.15 E.3.4 and E.3.3). Refuses what cannot be cleaned.
    """
    kind = dataset.text(0x00080016)
    if 0x00041220 in dataset.elements:
        raise _other_kind("an index of files: make a new one of the clean files")
    if 0x00420011 in dataset.elements:
        raise _other_kind("an encapsulated document")
    if kind and kind not in UID_dictionary:
        raise _other_kind("a private class")
    if kind.startswith(_REPORT) or 0x0040A730 in dataset.elements:
        if "clean_structured_content" not in profile.options:
            raise _other_kind("structured content: it takes the option clean_structured_content")
        return False
    if kind.startswith(_PRESENTATION):
        if "clean_graphics" not in profile.options:
            raise _other_kind("a presentation state: it takes the option clean_graphics")
        return False
    if 0x52009229 in dataset.elements or 0x52009230 in dataset.elements:
        raise _other_kind("functional groups by frame")
    element = dataset.elements.get(PIXEL_DATA)
    if element is None or element.items is not None or not (element.fragments or len(element.value)):
        raise Refusal(Reason.NO_PIXEL_DATA)
    return True


def _other_kind(which: str) -> Refusal:
    return Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, which)


_OVERLAY_PLANE = {
    0x0010: ("US", 2), 0x0011: ("US", 2), 0x0040: ("CS", 2), 0x0050: ("SS", 4), 0x0100: ("US", 2), 0x0102: ("US", 2),
}  # fmt: skip


def _keep_overlays(source: Dataset, kept: Dataset, identifiers: Identifiers) -> None:
    """Clean Graphics: overlay planes of their own stay where no text is in them; others go, as all do without it."""
    for group in range(0x6000, 0x6020, 2):
        base = group << 16
        kept.elements.pop(base | 0x3000, None)
        rows, cols = source.number(base | 0x0010), source.number(base | 0x0011)
        element = source.elements.get(base | 0x3000)
        if not rows or not cols or element is None or len(element.value) * 8 < rows * cols:
            continue
        bits = np.unpackbits(np.frombuffer(bytes(element.value), np.uint8), bitorder="little")[: rows * cols]
        plane = bits.reshape(rows, cols)
        if source.text(base | 0x0040) not in ("G", "R") or find_text(plane * np.uint8(255)):
            continue
        packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
        if identifiers.stand_in(packed):
            continue
        for number, (vr, size) in _OVERLAY_PLANE.items():
            found = source.elements.get(base | number)
            if found is not None and found.vr == vr and len(found.value) == size:
                kept.elements[base | number] = Element(base | number, vr, found.value)
        kept.elements[base | 0x3000] = Element(base | 0x3000, "OW", packed)


# --- trees ------------------------------------------------------------------------------------------------------------


def deidentify_tree(
    source: Path,
    target: Path,
    *,
    key: bytes,
    settings: DeidentifySettings,
    progress: Callable[[int, int], None] | None = None,
    crosswalk: Path | None = None,
    scale: ScaleSettings | None = None,
) -> pd.DataFrame:
    """Every file under `source`, cleaned into `target` or refused, with the account in `target/outcomes.parquet`.

    One row a file, sorted by digest; columns in COLUMNS. Files done before, with the same key and rules, are not done
    again. Of files with the same bytes one is cleaned; of files that claim one SOP instance with different content
    none is. With `crosswalk`, the encrypted way back is kept in that file. scale: where files are worked on. Raises
    KeyFileError where `target` was made with another key, StorageFull where the disk is full.
    """
    engine = Engine(key, settings)
    target.mkdir(parents=True, exist_ok=True)
    if not check_key(target, engine.pseudonymizer.fingerprint):
        with written_whole(target / _FINGERPRINT) as partial:
            partial.write_text(engine.pseudonymizer.fingerprint + "\n")
    for stale in target.glob(_partial("*")):
        if stale.is_dir():  # of the account, which is written whole
            shutil.rmtree(stale)
        else:
            stale.unlink()
    account = _Account(target, engine)
    files = sorted(path for path in source.rglob("*") if path.is_file() and target not in path.parents)
    if progress:
        progress(0, len(files))
    walk = Crosswalk(crosswalk, key) if crosswalk else None
    with closing(_outcomes(files, target, account, key, settings, scale or ScaleSettings())) as outcomes:
        for done, (outcome, sealed) in enumerate(outcomes, 1):
            if walk and sealed:
                walk.append([sealed])  # first: what a kill cuts short here is done again
            account.take(outcome)
            if progress:
                progress(done, len(files))
    return account.close()


def check_key(archive: Path, fingerprint: str) -> bool:
    """Whether an archive was made with the key of this fingerprint; False where none was used yet.

    One archive, one key: pseudonyms of two keys in one tree would make two patients of one. Raises KeyFileError.
    """
    recorded = archive / _FINGERPRINT
    if not recorded.exists():
        return False
    found = recorded.read_text().strip()
    if found != fingerprint:
        raise KeyFileError(f"this archive was made with key {found}, not with {fingerprint}: give it its own key")
    return True


class _Account:
    """Outcomes as they come, kept in a journal so that a killed run goes on where it stopped.

    `outcomes.parquet` is the account of all that the archive holds; the journal lives only while a run does.
    """

    def __init__(self, target: Path, engine: Engine) -> None:
        self.target, self.engine = target, engine
        self.known = {row.source_sha256: row for row in (*_recorded(target), *_journalled(target))}
        self.rows: dict[str, Outcome] = {}
        self.doubles: list[Outcome] = []
        self.journal = (target / _JOURNAL).open("a", encoding="utf-8")

    def done(self) -> dict[str, Outcome]:
        """What was done before by the same rules, and whose output is still there."""
        mark = self.engine.mark
        return {
            digest: row
            for digest, row in self.known.items()
            if (row.profile, row.table_sha256) == mark
            and (row.outcome == "refused" or (self.target / row.output).is_file())
            and row.reason != Reason.DUPLICATE.value
        }

    def take(self, outcome: Outcome) -> None:
        """One more outcome. The clean file goes to its place."""
        outcome.actions = sys.intern(outcome.actions)  # a device's files are alike: their account is held once
        if not outcome.source_sha256:  # never read
            self.doubles.append(outcome)
            return
        if outcome.source_sha256 in self.rows:
            self.doubles.append(_refused(outcome, Reason.DUPLICATE, "the same bytes"))
            return
        partial = self.target / _partial(outcome.source_sha256)
        if partial.exists() and outcome.outcome == "clean":
            final = self.target / outcome.output
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, final)
        self.rows[outcome.source_sha256] = outcome
        self.journal.write(json.dumps(asdict(outcome)) + "\n")
        self.journal.flush()

    def close(self) -> pd.DataFrame:
        """Settles doubles and writes the table."""
        self.journal.close()
        rows = [*self.rows.values()]
        earlier = (row for digest, row in self.known.items() if digest not in self.rows and row.outcome == "clean")
        rows += [row for row in earlier if (self.target / row.output).is_file()]
        rows = [*self._without_contradictions(rows), *self.doubles]
        rows.sort(key=lambda row: (row.source_sha256, row.outcome == "clean"))
        frame = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
        with written_whole(self.target / "outcomes.parquet") as partial:
            frame.to_parquet(partial, index=False)
        (self.target / _JOURNAL).unlink()
        return frame

    def _without_contradictions(self, rows: list[Outcome]) -> list[Outcome]:
        """Of sources that claim one SOP instance with different content, none stays: nobody can say which is true."""
        claims = Counter(row.image for row in rows if row.outcome == "clean")
        settled = []
        for row in rows:
            if row.outcome == "clean" and claims[row.image] > 1:
                (self.target / row.output).unlink(missing_ok=True)
                row = _refused(row, Reason.DUPLICATE, "the same instance with other content")
            settled.append(row)
        return settled


def _recorded(target: Path) -> list[Outcome]:
    table = target / "outcomes.parquet"
    if not table.exists():
        return []
    frame = pd.read_parquet(table, columns=list(COLUMNS))
    rows = []
    for record in frame.to_dict("records"):
        record["boxes"] = [[int(side) for side in box] for box in record["boxes"]]
        rows.append(Outcome(**{str(name): value for name, value in record.items()}))
    return [row for row in rows if row.reason != Reason.DUPLICATE.value]


def _journalled(target: Path) -> list[Outcome]:
    journal = target / _JOURNAL
    found = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            found.append(Outcome(**json.loads(line)))
        except ValueError:
            continue  # the line that a crash cut short: its file is done again
    return found


def _refused(row: Outcome, reason: Reason, detail: str) -> Outcome:
    kept = {name: getattr(row, name) for name in ("table_sha256", "profile", "key_fingerprint")}
    return Outcome(row.source_sha256, "refused", reason.value, detail=detail, **kept)


def _partial(digest: str) -> str:
    return f".partial-{digest}"  # no name of an image: nobody takes it for one


def _outcomes(
    files: list[Path], target: Path, account: _Account, key: bytes, settings: DeidentifySettings, scale: ScaleSettings
) -> Generator[Done]:
    """One outcome a file, as they come. A file that ends its process twice is refused; the others go on."""
    if settings.workers:
        scale = scale.model_copy(update={"workers": settings.workers})
    cleaning = _Cleaning(key, settings, target, account.done())
    shared = ["radia.dicom.deidentify", "onnxruntime", "cv2"]
    return each(cleaning, files, if_lost=cleaning.lost, scale=scale, ordered=False, preload=shared)


@dataclass(frozen=True)
class _Cleaning:
    """What a worker does with a file: reads it, cleans it, writes the clean one beside its place."""

    key: bytes
    settings: DeidentifySettings
    target: Path
    known: dict[str, Outcome]

    @cached_property
    def engine(self) -> Engine:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        return Engine(self.key, self.settings)

    @cached_property
    def crosswalk(self) -> Crosswalk:
        return Crosswalk(self.target / "crosswalk", self.key)

    def __call__(self, path: Path) -> Done:
        try:
            raw = path.read_bytes()
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            return self.engine.refused("", Reason.UNREADABLE, f"the file cannot be opened: {name}"), ""
        digest = hashlib.sha256(raw).hexdigest()
        if digest in self.known:
            return self.known[digest], ""
        try:
            clean = self.engine.deidentify_file(raw, digest)
            _written(self.target / _partial(digest), clean.pieces)
            return clean.outcome, self.crosswalk.seal(clean.origin)
        except Refusal as refusal:
            return self.engine.refused(digest, refusal.reason, refusal.detail), ""
        except MemoryError:
            return self.engine.refused(digest, Reason.UNREADABLE_PIXELS, "too large for memory"), ""
        except (RadiaError, OSError):
            raise
        except Exception as error:  # a file that nobody thought of costs itself; its message may quote the file
            return self.engine.refused(digest, Reason.UNREADABLE, type(error).__name__), ""

    def lost(self, path: Path) -> Done:
        """The outcome of a file that ended its process twice."""
        return Engine(self.key, self.settings).refused(digests.of_file(path), Reason.WORKER_LOST), ""


def _written(path: Path, pieces: list[container.Buffer]) -> None:
    try:
        with path.open("wb") as file:
            file.writelines(pieces)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("no room left on the disk that takes the clean files: free some and run again") from error
        raise
