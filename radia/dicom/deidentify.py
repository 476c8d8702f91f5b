"""De-identification of files and of whole trees.

`deidentify_file` turns the bytes of one file into the bytes of a clean one, or refuses. `deidentify_tree` does so for
every file of a folder, over processes, and keeps the account. What each element means is in `clean`, pixels are in
`burned_in` and `codestream`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from numpy.typing import NDArray

from radia import digests
from radia.dicom import container
from radia.dicom.burned_in import Box, blank, find_text
from radia.dicom.clean import Cleaner
from radia.dicom.codestream import without_comments
from radia.dicom.container import PIXEL_DATA, Dataset, Element, Part10
from radia.dicom.crosswalk import Crosswalk, Origin
from radia.dicom.pixels import encode_lossless, stored_pixels
from radia.dicom.profile import Profile, table_sha256
from radia.dicom.pseudonyms import Pseudonymizer, normal_form
from radia.dicom.text import harvest
from radia.dicom.verify import verify
from radia.errors import KeyFileError, Reason, Refusal, StorageFull
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
        _check_kind(dataset)
        outcome = self._names(dataset, digest)
        identifiers = harvest(dataset, self.profile)
        cleaner = Cleaner(self.profile, self.pseudonymizer, outcome.patient, identifiers)
        kept = cleaner.clean(dataset)
        syntax, pixels, boxes = self._pixels(source)
        kept.add(pixels)
        if self.settings.clean_graphics:
            _keep_overlays(dataset, kept)
        sop_class, sop_instance = dataset.text(0x00080016), kept.text(0x00080018)
        pieces = [
            container.encode_header(sop_class, sop_instance, syntax),
            *(piece for tag in sorted(kept.elements) for piece in container.encode_element(kept.elements[tag])),
        ]
        verify(pieces, pixels, identifiers, self.profile, made=cleaner.made(kept))
        outcome.outcome, outcome.boxes = "clean", [box.as_list() for box in boxes]
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

    def _pixels(self, source: Part10) -> tuple[str, Element, list[Box]]:
        """The pixel data to write: as they came where nothing must change, else encoded anew without loss."""
        element = source.dataset.elements[PIXEL_DATA]
        native = source.syntax in container.NATIVE
        _check_length(source.dataset, native=native)
        if self.settings.clean_pixels:
            stored = _native_values(source) if native else _decoded(source)
            boxes = find_text(stored) if stored.ndim == 2 else []
            if boxes:
                return *_blanked(source, stored, boxes), boxes
        if native:
            return container.EXPLICIT, _native(source, element), []
        return source.syntax, _stripped(source, element), []


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


def _check_kind(dataset: Dataset) -> None:
    if 0x00420011 in dataset.elements or 0x0040A730 in dataset.elements or 0x00041220 in dataset.elements:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN)
    element = dataset.elements.get(PIXEL_DATA)
    if element is None:
        raise Refusal(Reason.NO_PIXEL_DATA)
    if element.items is not None or not (element.fragments or len(element.value)):
        raise Refusal(Reason.NO_PIXEL_DATA)


def _decoded(source: Part10) -> NDArray[Any]:
    """Stored values of the first frame, by the one reader."""
    dataset = source.dataset
    needed = {0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101}
    image = Dataset()
    for tag in sorted(needed | {0x00280102, 0x00280103, PIXEL_DATA}):
        if tag in dataset.elements:
            image.elements[tag] = dataset.elements[tag]
    syntax = container.EXPLICIT if source.syntax in container.NATIVE else source.syntax
    header = container.encode_header("1.2.840.10008.5.1.4.1.1.1", "2.25.1", syntax)
    return stored_pixels(pydicom.dcmread(BytesIO(header + container.encode(image))))


def _native_values(source: Part10) -> NDArray[Any]:
    """Uncompressed gray stored values without a detour over pydicom; whatever is not plain gray goes that way."""
    dataset = source.dataset
    allocated, bits = dataset.number(0x00280100), dataset.number(0x00280101)
    high = dataset.number(0x00280102)
    if (dataset.number(0x00280002, 1) or 1) != 1 or allocated not in (8, 16) or not bits or high != bits - 1:
        return _decoded(source)
    rows, cols = dataset.number(0x00280010) or 0, dataset.number(0x00280011) or 0
    size = rows * cols * allocated // 8
    held = np.frombuffer(dataset.elements[PIXEL_DATA].value[:size], f"<u{allocated // 8}").reshape(rows, cols)
    values = held if bits == allocated else held & ((1 << bits) - 1)
    if not dataset.number(0x00280103):
        return values
    sign = 1 << (bits - 1)
    return ((values.astype(np.int32) ^ sign) - sign).astype(f"i{allocated // 8}")


def _check_length(dataset: Dataset, *, native: bool) -> None:
    rows, cols = dataset.number(0x00280010), dataset.number(0x00280011)
    allocated = dataset.number(0x00280100)
    if not rows or not cols or not allocated:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no size is given")
    samples = dataset.number(0x00280002, 1) or 1
    element = dataset.elements[PIXEL_DATA]
    if (dataset.number(0x00280008, 1) or 1) != 1:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, "several frames")
    if (element.fragments is None) != native:
        raise Refusal(Reason.UNREADABLE_PIXELS, "not encoded as the transfer syntax says")
    if element.fragments is None and len(element.value) < rows * cols * samples * allocated // 8:
        raise Refusal(Reason.TRUNCATED, "pixel data")


def _native(source: Part10, element: Element) -> Element:
    """Uncompressed pixels: what the image needs, no byte more, and nothing in unused bits."""
    dataset = source.dataset
    allocated = dataset.number(0x00280100) or 16
    bits = dataset.number(0x00280101) or allocated
    samples = dataset.number(0x00280002, 1) or 1
    size = (dataset.number(0x00280010) or 0) * (dataset.number(0x00280011) or 0) * samples * allocated // 8
    value, vr = element.value[:size], "OW" if allocated > 8 else "OB"
    if allocated not in (8, 16, 32) or bits >= allocated:
        return Element(PIXEL_DATA, vr, value)
    held = np.frombuffer(value, f"<u{allocated // 8}")
    low = max((dataset.number(0x00280102) or bits - 1) + 1 - bits, 0)
    used = ((1 << bits) - 1) << low
    if dataset.number(0x00280103) or not (held & ~np.array(used, held.dtype)).any():
        # a negative value fills the unused bits with its sign; anything else there is not of the image
        signed = _sign_extended(held, bits, low) if dataset.number(0x00280103) else held
        return Element(PIXEL_DATA, vr, value if np.array_equal(signed, held) else signed.tobytes())
    return Element(PIXEL_DATA, vr, (held & np.array(used, held.dtype)).tobytes())


def _sign_extended(held: NDArray[Any], bits: int, low: int) -> NDArray[Any]:
    spare = held.dtype.itemsize * 8 - bits - low
    signed = held.view(f"i{held.dtype.itemsize}")
    return np.asarray((signed << spare >> (spare + low)) << low).view(held.dtype)


def _stripped(source: Part10, element: Element) -> Element:
    """Compressed pixels as they came, without what is not image. RLE, where bytes can hide, is packed anew."""
    stream = b"".join(map(bytes, element.fragments or ()))
    if source.syntax != container.RLE:
        clean = without_comments(stream, jpeg_2000=source.syntax in container.JPEG_2000_FAMILY)
        return Element(PIXEL_DATA, "OB", fragments=[clean])
    stored = _decoded(source)
    if stored.ndim != 2:
        return Element(PIXEL_DATA, "OB", fragments=[stream])
    allocated = source.dataset.number(0x00280100) or 16
    _, content = encode_lossless(stored, container.RLE, bits=allocated, allocated=allocated)
    return Element(PIXEL_DATA, "OB", fragments=list(content) if isinstance(content, list) else [content])


def _blanked(source: Part10, stored: NDArray[Any], boxes: list[Box]) -> tuple[str, Element]:
    dataset = source.dataset
    bits = dataset.number(0x00280101) or stored.dtype.itemsize * 8
    allocated = dataset.number(0x00280100) or stored.dtype.itemsize * 8
    signed = stored.dtype.kind == "i"
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    dark_is_high = dataset.text(0x00280004) == "MONOCHROME1"
    cleaned = blank(stored, boxes, lowest=lowest, highest=highest, black_is_high=dark_is_high)
    syntax, content = encode_lossless(cleaned, source.syntax, bits=bits, allocated=allocated)
    if isinstance(content, list):
        return syntax, Element(PIXEL_DATA, "OB", fragments=content)
    return syntax, Element(PIXEL_DATA, "OW" if allocated > 8 else "OB", content)


_OVERLAY_PLANE = {0x0010: "US", 0x0011: "US", 0x0040: "CS", 0x0050: "SS", 0x0100: "US", 0x0102: "US"}


def _keep_overlays(source: Dataset, kept: Dataset) -> None:
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
        for number, vr in _OVERLAY_PLANE.items():
            found = source.elements.get(base | number)
            if found is not None and found.vr == vr:
                kept.elements[base | number] = Element(base | number, vr, found.value)
        packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
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
    _check_key(target, engine.pseudonymizer.fingerprint)
    account = _Account(target, engine)
    files = sorted(path for path in source.rglob("*") if path.is_file() and target not in path.parents)
    if progress:
        progress(0, len(files))
    walk = Crosswalk(crosswalk, key) if crosswalk else None
    with closing(_outcomes(files, target, account, key, settings, scale or ScaleSettings())) as outcomes:
        for done, (outcome, sealed) in enumerate(outcomes, 1):
            account.take(outcome)
            if walk and sealed:
                walk.append([sealed])
            if progress:
                progress(done, len(files))
    return account.close()


def _check_key(target: Path, fingerprint: str) -> None:
    """One archive, one key: pseudonyms of two keys in one tree would make two patients of one."""
    recorded = target / _FINGERPRINT
    if recorded.exists():
        found = recorded.read_text().strip()
        if found != fingerprint:
            raise KeyFileError(f"this archive was made with key {found}, not with {fingerprint}: give it its own key")
        return
    with written_whole(recorded) as partial:
        partial.write_text(fingerprint + "\n")


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
    return f".partial-{digest}.dcm"


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
        raw = path.read_bytes()
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
