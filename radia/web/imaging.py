"""An upload's bytes to an image in memory, and to nothing else of its file.

What belongs here: DICOM, PNG and JPEG from strangers, bounded before anything is decoded (what the header and the code
stream announce: rows, columns, channels, frames, scans, inflated size), and stripped before anything is looked at: of a
DICOM file only the elements that its pixels need, and three that say what kind of image it is, are ever kept. What does
not: what a model makes of it (reading.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.dicom import container
from radia.dicom.announced import MAX_CHANNELS, MAX_SCANS, check_size, check_stream, too_large
from radia.dicom.container import PIXEL_DATA, Part10
from radia.errors import RadiaError, Reason, Refusal

Gray = NDArray[np.float32]
Shades = NDArray[np.uint8] | NDArray[np.uint16]

MAX_FRAMES = 100
MAX_BYTES = 256 << 20
"""Of one image once it is decoded, and of a deflated data set."""

_SHOWING = (
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, 0x00280106, 0x00280107, 0x00280120, 0x00280121, 0x00281040, 0x00281041, 0x00281050, 0x00281051,
    0x00281052, 0x00281053, 0x00281054, 0x00281056, 0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202,
    0x00281203, 0x00283000, 0x00283010, 0x00080068, 0x00080060, 0x00180015, 0x00185101,
)  # fmt: skip
"""Group 0028 and the presentation intent for the pixels; modality, body part and view for what kind of image it is."""


@dataclass(frozen=True)
class Kind:
    """What a header says of the kind of image, each None where it does not."""

    modality: str | None = None
    body_part: str | None = None
    view: str | None = None


@dataclass(frozen=True)
class Film:
    """One image. gray: [rows, columns] in 0..1, bone white, as `read_gray` shows it."""

    gray: Gray
    kind: Kind
    _shades: Callable[[], tuple[Shades, float, float]]

    def display(self) -> Display:
        """The image at its full depth, for a window that a person moves."""
        return Display(*self._shades())


@dataclass(frozen=True)
class Display:
    """shades: [rows, columns], brighter is higher. low, high: the shades that are black and white as it is meant."""

    shades: Shades
    low: float
    high: float

    def without_text(self) -> Display:
        """The same with legible burned-in text blanked, as the archive's films have it. Raises Refusal without a
        detector of text.
        """
        from radia.dicom.burned_in import find_text

        boxes = find_text(self.shades)
        if not boxes:
            return self
        cleaned = self.shades.copy()
        for box in boxes:
            cleaned[box.y0 : box.y1, box.x0 : box.x1] = 0
        return Display(cleaned, self.low, self.high)

    def as_bytes(self) -> tuple[bytes, dict[str, str]]:
        """The shades row by row, of two bytes the low one first, and the headers that tell viewer.js of them."""
        rows, columns = self.shades.shape
        facts = {"Rows": rows, "Columns": columns, "Bits": 8 * self.shades.itemsize, "Low": self.low, "High": self.high}
        return self.shades.astype(f"<u{self.shades.itemsize}", copy=False).tobytes(), {
            f"X-Film-{name}": f"{value:.10g}" for name, value in facts.items()
        }


def read_film(content: bytes) -> Film:
    """The image of a DICOM, PNG or JPEG file in memory. Raises Refusal, which quotes nothing of the file."""
    if not content:
        raise Refusal(Reason.EMPTY_FILE)
    picture = content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    try:
        return _picture(content) if picture else _dicom(content)
    except Refusal:
        raise
    except (MemoryError, RecursionError) as error:
        raise Refusal(Reason.UNREADABLE, "too large or nested too deep") from error
    except Exception as error:  # a damaged file makes decoders and parsers raise whatever they like
        if isinstance(error, RadiaError):
            raise
        reason = Reason.UNREADABLE_PIXELS if picture else Reason.UNREADABLE
        raise Refusal(reason, "not a readable PNG or JPEG file" if picture else type(error).__name__) from error


# --- PNG and JPEG -----------------------------------------------------------------------------------------------------


def _picture(content: bytes) -> Film:
    from PIL import Image, ImageOps

    if content.count(b"\xff\xda") > MAX_SCANS and content.startswith(b"\xff"):
        raise Refusal(Reason.UNREADABLE_PIXELS, f"more than {MAX_SCANS} scans")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            _check_size(opened.height, opened.width)
            upright = ImageOps.exif_transpose(opened)
            deep = upright.mode.startswith("I")
            values = np.asarray(upright if deep else upright.convert("L"))
    except Image.DecompressionBombError as error:
        raise too_large() from error
    depth = np.uint16 if deep else np.uint8
    shades = np.ascontiguousarray(np.clip(values, 0, np.iinfo(depth).max).astype(depth))
    top = float(np.iinfo(depth).max)
    gray = shades.astype(np.float32) / np.float32(top)
    return Film(gray, Kind(), lambda: (shades, 0.0, top))


# --- DICOM ------------------------------------------------------------------------------------------------------------


def _dicom(content: bytes) -> Film:
    from radia.dicom.facts import facts_of
    from radia.dicom.pixels import gray_by_value, looked_up, read_gray, stored_pixels

    dataset = _only_the_image(container.parse(content, most_inflated=MAX_BYTES))
    facts = facts_of(dataset)
    kind = Kind(facts.modality, facts.body_part, facts.view)
    stored = stored_pixels(dataset)
    _check_size(*stored.shape[:2])
    table = gray_by_value(stored, dataset) if stored.ndim == 2 else None
    if table is None:
        gray = read_gray(dataset)
        return Film(gray, kind, lambda: _sixteen_bits(gray))
    by_value = table

    def shades() -> tuple[Shades, float, float]:
        window = _window(stored, by_value)
        return looked_up(stored, window.shades), window.low, window.high

    return Film(looked_up(stored, table), kind, shades)


def _sixteen_bits(gray: Gray) -> tuple[Shades, float, float]:
    return np.rint(gray * 65535).astype(np.uint16), 0.0, 65535.0


def _only_the_image(source: Part10) -> Any:
    """A dataset of what shows the image, with its first frame (or all, where they are compressed)."""
    import pydicom

    header = container.Dataset(
        {tag: source.dataset.elements[tag] for tag in _SHOWING if tag in source.dataset.elements}
    )
    pixels = source.dataset.elements.get(PIXEL_DATA)
    if pixels is None or pixels.items is not None:
        raise Refusal(Reason.NO_PIXEL_DATA)
    frame_bytes, frames = _announced(header)
    native = source.syntax in container.NATIVE
    if native != (pixels.fragments is None):
        raise Refusal(Reason.UNREADABLE_PIXELS, "not encoded as the transfer syntax says")
    header.elements.pop(0x00280008, None)
    syntax = container.EXPLICIT if native else source.syntax
    if native:
        if len(pixels.value) < frame_bytes:
            raise Refusal(Reason.TRUNCATED, "pixel data")
        content = bytes(pixels.value[: frame_bytes + frame_bytes % 2])
    else:
        fragments = [bytes(fragment) for fragment in pixels.fragments or ()]
        if syntax != container.RLE:
            first = b"".join(fragments) if frames == 1 else fragments[0] if fragments else b""
            check_stream(first, jpeg_2000=syntax in container.JPEG_2000_FAMILY)
        content = _encapsulated(fragments, one=frames == 1)
    meta = container.encode_header("1.2.840.10008.5.1.4.1.1.1", "2.25.1", syntax)
    dataset = pydicom.dcmread(io.BytesIO(meta + container.encode(header)))
    if not native and frames > 1:
        dataset.NumberOfFrames = frames
    vr = "OB" if not native or (header.number(0x00280100) or 16) <= 8 else "OW"
    dataset.add_new(PIXEL_DATA, vr, content)
    dataset[PIXEL_DATA].is_undefined_length = not native
    return dataset


def _announced(header: container.Dataset) -> tuple[int, int]:
    """Bytes of a decoded frame and the number of frames, as the header has them. Raises Refusal beyond the bounds."""
    rows, columns = header.number(0x00280010) or 0, header.number(0x00280011) or 0
    samples, allocated = header.number(0x00280002, 1) or 1, header.number(0x00280100) or 0
    frames = header.number(0x00280008, 1) or 1
    if not (0 < allocated <= 64 and 0 < samples <= MAX_CHANNELS):
        raise Refusal(Reason.UNREADABLE_PIXELS, "a size that cannot be")
    _check_size(rows, columns)
    if not 0 < frames <= MAX_FRAMES:
        raise Refusal(Reason.UNREADABLE_PIXELS, f"more than {MAX_FRAMES} frames")
    size = (rows * columns * samples * allocated + 7) // 8
    if size > MAX_BYTES:
        raise too_large()
    return size, frames


def _encapsulated(fragments: list[bytes], *, one: bool) -> bytes:
    from pydicom.encaps import encapsulate

    if not fragments:
        raise Refusal(Reason.NO_PIXEL_DATA)
    return bytes(encapsulate([b"".join(fragments)] if one else fragments, has_bot=False))


def _check_size(rows: int, columns: int) -> None:
    check_size(rows, columns)
    if max(rows, columns) > 64 * min(rows, columns):
        raise Refusal(Reason.NOT_CHEST, "a strip")


# --- full depth -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """shades: the shade of each stored value, as `gray_by_value` orders them. low, high: as in Display."""

    shades: Shades
    low: float
    high: float


def _window(stored: NDArray[Any], table: Gray) -> _Window:
    """Shades that keep every stored value of the image apart, where gray grows evenly with it between black and white.

    Where it does not (a table or a curve shows the image), the shades are its gray at 16 bits.
    """
    first, last = int(stored.min()), int(stored.max())
    values = np.arange(first, last + 1)
    gray = table[values.astype(stored.dtype).view(f"u{stored.dtype.itemsize}")].astype(np.float64)
    inside = np.flatnonzero((gray > 0) & (gray < 1))
    if len(inside) >= 2:
        slope, offset = np.polyfit(values[inside], gray[inside], 1)
        ideal = np.clip(slope * values + offset, 0, 1)
        padding = (gray == 0) & (ideal > 1e-3)
        if abs(slope) > 0 and np.abs(ideal - gray)[~padding].max() < 1e-3 and padding.mean() < 0.5:
            return _even(stored, table, (first, last), float(slope), float(offset), values[padding])
    return _Window(np.rint(table * 65535).astype(np.uint16), 0.0, 65535.0)


def _even(
    stored: NDArray[Any], table: Gray, ends: tuple[int, int], slope: float, offset: float, padding: NDArray[Any]
) -> _Window:
    first, last = ends
    black, white = (-offset / slope, (1 - offset) / slope)
    values = np.arange(first, last + 1)
    ordered, low, high = (values - first, black - first, white - first)
    if slope < 0:
        ordered, low, high = (last - values, last - black, last - white)
    shades: Shades = np.zeros(len(table), np.uint8) if last - first < 256 else np.zeros(len(table), np.uint16)
    shades[values.astype(stored.dtype).view(f"u{stored.dtype.itemsize}")] = ordered
    shades[padding.astype(stored.dtype).view(f"u{stored.dtype.itemsize}")] = 0
    return _Window(shades, low, high)
