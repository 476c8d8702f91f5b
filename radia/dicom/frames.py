"""The pixel data of a file, frame by frame: looked at for text, blanked where there is some, and rid of all that is
not image.

What belongs here: which bytes of the pixel data are written. What does not: where text stands (`burned_in`), the syntax
of compressed streams (`codestream`), encoders (`pixels`). Pixels outside the boxes stay as they are, bit by bit; where
no text is found, compressed frames stay compressed as they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut

from radia.dicom import container
from radia.dicom.announced import check_size, check_stream, too_large
from radia.dicom.burned_in import Box, blank, find_text
from radia.dicom.codestream import precision, without_comments
from radia.dicom.container import PIXEL_DATA, Dataset, Element, Part10
from radia.dicom.identifiers import Identifiers
from radia.dicom.pixels import encode_lossless, stored_pixels
from radia.errors import Reason, Refusal

_DECODING = (
    0x00280002, 0x00280004, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
    0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203,
)  # fmt: skip
_PALETTE = (0x00280004, 0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203)
_MOST_FRAMES = 100
"""Each is searched for text on its own; a chest radiograph has one, a tomosynthesis some dozens."""
_MOST_DECODED = 1 << 29
"""Bytes of all frames of one image."""


@dataclass(frozen=True)
class CleanPixels:
    """The pixel data to write, in which transfer syntax, what was blanked, and attributes that changed with it."""

    syntax: str
    element: Element
    boxes: list[Box]
    changed: tuple[Element, ...] = ()


@dataclass(frozen=True)
class _Shape:
    rows: int
    cols: int
    samples: int
    allocated: int
    bits: int
    low: int
    signed: bool
    frames: int

    @property
    def frame_bytes(self) -> int:
        return (self.rows * self.cols * self.samples * self.allocated + 7) // 8

    @property
    def used(self) -> int:
        """The bits of a stored value that are image."""
        return ((1 << self.bits) - 1) << self.low


def clean_pixels(source: Part10, identifiers: Identifiers, *, look: bool) -> CleanPixels:
    """The pixel data of an image without legible text (where `look`) and without hidden bytes. Raises Refusal.

    identifiers: a compressed stream that has one of them in its tables, or behind the last pixel, is encoded anew.
    """
    shape = _shape(source.dataset)
    native = source.syntax in container.NATIVE
    _check(source, shape, native=native)
    frames = list(_frames(source, shape, native=native))
    if not native and source.syntax != container.RLE:
        for frame in frames:
            check_stream(bytes(frame), jpeg_2000=source.syntax in container.JPEG_2000_FAMILY)
    if shape.samples > 1:
        return _colour(source, shape, frames, identifiers, look=look, native=native)
    if look:
        stored = [_stored(source, shape, frame, native=native) for frame in frames]
        boxes = [_each_once([find_text(seen) for seen in _as_seen(source, image)]) for image in stored]
        if any(boxes):
            return _encoded_anew(source, shape, stored, boxes)
    if native:
        return CleanPixels(container.EXPLICIT, _native(source, shape), [])
    if source.syntax == container.RLE:  # bytes can hide in it
        return _encoded_anew(source, shape, [_decoded(source, frame) for frame in frames], [[] for _ in frames])
    streams = [
        without_comments(bytes(frame), jpeg_2000=source.syntax in container.JPEG_2000_FAMILY) for frame in frames
    ]
    if any(identifiers.stand_in_ends(stream) or _holds_more(source, shape, stream) for stream in streams):
        return _encoded_anew(source, shape, [_decoded(source, stream) for stream in streams], [[] for _ in streams])
    return CleanPixels(source.syntax, Element(PIXEL_DATA, "OB", fragments=list(streams)), [])


def _shape(dataset: Dataset) -> _Shape:
    rows, cols, allocated = (dataset.number(tag) for tag in (0x00280010, 0x00280011, 0x00280100))
    if not rows or not cols or not allocated:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no size is given")
    bits = dataset.number(0x00280101) or allocated
    high = dataset.number(0x00280102)
    samples, frames = dataset.number(0x00280002, 1) or 1, dataset.number(0x00280008, 1) or 1
    if not 0 < bits <= allocated <= 64 or not 0 < samples <= 4 or frames < 1:
        raise Refusal(Reason.UNREADABLE_PIXELS, "a size that cannot be")
    if frames > _MOST_FRAMES:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, f"more than {_MOST_FRAMES} frames")
    check_size(rows, cols)
    if rows * cols * samples * allocated * frames > 8 * _MOST_DECODED:
        raise too_large()
    low = max((bits - 1 if high is None else high) + 1 - bits, 0)
    if low + bits > allocated:
        raise Refusal(Reason.UNREADABLE_PIXELS, "a size that cannot be")
    return _Shape(rows, cols, samples, allocated, bits, low, bool(dataset.number(0x00280103)), frames)


def _check(source: Part10, shape: _Shape, *, native: bool) -> None:
    element = source.dataset.elements[PIXEL_DATA]
    if (element.fragments is None) != native:
        raise Refusal(Reason.UNREADABLE_PIXELS, "not encoded as the transfer syntax says")
    if native and len(element.value) < shape.frame_bytes * shape.frames:
        raise Refusal(Reason.TRUNCATED, "pixel data")
    if native and shape.frames > 1 and shape.allocated % 8:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, "several frames of single bits")


def _frames(source: Part10, shape: _Shape, *, native: bool) -> Iterator[container.Buffer]:
    """The bytes of each frame."""
    element = source.dataset.elements[PIXEL_DATA]
    if native:
        size = shape.frame_bytes
        yield from (element.value[at * size : (at + 1) * size] for at in range(shape.frames))
        return
    fragments = [bytes(fragment) for fragment in element.fragments or ()]
    if shape.frames == 1:
        yield b"".join(fragments)
        return
    if source.syntax != container.RLE:  # a frame may go over several fragments, and starts where an image starts
        starts = b"\xff\x4f\xff\x51" if source.syntax in container.JPEG_2000_FAMILY else b"\xff\xd8\xff"
        joined: list[bytes] = []
        for fragment in fragments:
            if fragment.startswith(starts) or not joined:
                joined.append(fragment)
            else:
                joined[-1] += fragment
        fragments = joined
    if len(fragments) != shape.frames:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, "frames that cannot be told apart")
    yield from fragments


def _stored(source: Part10, shape: _Shape, frame: container.Buffer, *, native: bool) -> NDArray[Any]:
    """The stored values of one frame: plain gray without a detour over pydicom, all else by the one reader."""
    plain = native and shape.samples == 1 and shape.allocated in (8, 16) and not shape.low
    if not plain:
        return _decoded(source, frame)
    held = np.frombuffer(frame, f"<u{shape.allocated // 8}").reshape(shape.rows, shape.cols)
    values = held if shape.bits == shape.allocated else held & ((1 << shape.bits) - 1)
    if not shape.signed:
        return values
    sign = 1 << (shape.bits - 1)
    return ((values.astype(np.int32) ^ sign) - sign).astype(f"i{shape.allocated // 8}")


def _decoded(source: Part10, frame: container.Buffer) -> NDArray[Any]:
    image = Dataset()
    for tag in _DECODING:
        if tag in source.dataset.elements:
            image.elements[tag] = source.dataset.elements[tag]
    native = source.syntax in container.NATIVE
    pixels = source.dataset.elements[PIXEL_DATA]
    vr = "OW" if native and (source.dataset.number(0x00280100) or 16) > 8 else "OB"
    image.elements[PIXEL_DATA] = (
        Element(PIXEL_DATA, vr, frame) if native else Element(PIXEL_DATA, pixels.vr, fragments=[frame])
    )
    syntax = container.EXPLICIT if native else source.syntax
    header = container.encode_header("1.2.840.10008.5.1.4.1.1.1", "2.25.1", syntax)
    return stored_pixels(pydicom.dcmread(BytesIO(header + container.encode(image))))


def _as_seen(source: Part10, stored: NDArray[Any]) -> list[NDArray[Any]]:
    """What is searched for text: the stored values and, where they are numbers of a palette, each colour of it too."""
    if source.dataset.text(0x00280004) != "PALETTE COLOR":
        return [stored]
    palette = Dataset()
    for tag in _PALETTE:
        if tag in source.dataset.elements:
            palette.elements[tag] = source.dataset.elements[tag]
    header = container.encode_header("1.2.840.10008.5.1.4.1.1.1", "2.25.1", container.EXPLICIT)
    try:
        colours = apply_color_lut(stored, pydicom.dcmread(BytesIO(header + container.encode(palette))))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Refusal(Reason.UNREADABLE_PIXELS, "a palette that cannot be applied") from error
    return [stored, *(np.ascontiguousarray(colours[..., channel]) for channel in range(3))]


# --- where nothing must change ----------------------------------------------------------------------------------------


def _native(source: Part10, shape: _Shape) -> Element:
    """Uncompressed pixels: what the image needs, no byte more, and nothing in unused bits."""
    value = source.dataset.elements[PIXEL_DATA].value[: shape.frame_bytes * shape.frames]
    vr = "OW" if shape.allocated > 8 else "OB"
    if shape.allocated not in (8, 16, 32, 64) or shape.bits >= shape.allocated:
        return Element(PIXEL_DATA, vr, value)
    held = np.frombuffer(value, f"<u{shape.allocated // 8}")
    used = np.array(shape.used, held.dtype)
    if shape.signed:  # a negative value fills the unused bits with its sign; anything else there is not of the image
        extended = _sign_extended(held, shape.bits, shape.low)
        return Element(PIXEL_DATA, vr, value if np.array_equal(extended, held) else extended.tobytes())
    if held.max(initial=0) <= used and not shape.low:
        return Element(PIXEL_DATA, vr, value)
    masked = held & used
    return Element(PIXEL_DATA, vr, value if np.array_equal(masked, held) else masked.tobytes())


def _sign_extended(held: NDArray[Any], bits: int, low: int) -> NDArray[Any]:
    spare = held.dtype.itemsize * 8 - bits - low
    signed = held.view(f"i{held.dtype.itemsize}")
    return np.asarray((signed << spare >> (spare + low)) << low).view(held.dtype)


def _holds_more(source: Part10, shape: _Shape, stream: bytes) -> bool:
    """Whether a stream is deeper than the image and has bits set where the image has none."""
    if precision(stream, jpeg_2000=source.syntax in container.JPEG_2000_FAMILY) <= shape.bits:
        return False
    deep = Part10(source.meta, Dataset(dict(source.dataset.elements)), source.syntax)
    deep.dataset.elements[0x00280101] = Element(0x00280101, "US", shape.allocated.to_bytes(2, "little"))
    deep.dataset.elements[0x00280102] = Element(0x00280102, "US", (shape.allocated - 1).to_bytes(2, "little"))
    held = _decoded(deep, stream)
    if shape.signed:
        half = 1 << (shape.bits - 1)
        return bool((held < -half).any() or (held >= half).any())
    return bool((held.astype(np.int64) & ~np.int64(shape.used)).any())


# --- where something must change --------------------------------------------------------------------------------------


def _encoded_anew(source: Part10, shape: _Shape, stored: list[NDArray[Any]], boxes: list[list[Box]]) -> CleanPixels:
    """All frames with the boxes blanked, in one lossless syntax of the same family."""
    if shape.allocated not in (8, 16):
        raise Refusal(Reason.UNREADABLE_PIXELS, "pixels of a depth that cannot be written anew")
    bits = shape.bits
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if shape.signed else (0, (1 << bits) - 1)
    dark_is_high = source.dataset.text(0x00280004) == "MONOCHROME1"
    syntax, pieces = container.EXPLICIT, []
    for image, found in zip(stored, boxes, strict=True):
        cleaned = blank(image, found, lowest=lowest, highest=highest, black_is_high=dark_is_high) if found else image
        syntax, content = encode_lossless(cleaned, source.syntax, bits=bits, allocated=shape.allocated)
        pieces.append(content[0] if isinstance(content, list) else content)
    kept = _each_once(boxes)
    changed: tuple[Element, ...] = ()
    if shape.low and source.syntax in container.NATIVE:  # what is written stands in the lowest bits
        changed = (Element(0x00280102, "US", (bits - 1).to_bytes(2, "little")),)
    if syntax in container.NATIVE:
        vr = "OW" if shape.allocated > 8 else "OB"
        return CleanPixels(syntax, Element(PIXEL_DATA, vr, b"".join(pieces)), kept, changed)
    return CleanPixels(syntax, Element(PIXEL_DATA, "OB", fragments=list(pieces)), kept, changed)


def _each_once(boxes: list[list[Box]]) -> list[Box]:
    return list(dict.fromkeys(box for found in boxes for box in found))


# --- colour -----------------------------------------------------------------------------------------------------------


def _colour(
    source: Part10,
    shape: _Shape,
    frames: list[container.Buffer],
    identifiers: Identifiers,
    *,
    look: bool,
    native: bool,
) -> CleanPixels:
    """Colour images: text is looked for in each channel. What must be encoded anew becomes uncompressed RGB."""
    if shape.allocated != 8 or shape.bits != 8 or shape.samples != 3:
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, "colour of other than eight bits or three channels")
    if source.dataset.text(0x00280004) not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"):
        raise Refusal(Reason.NOT_AN_IMAGE_TO_CLEAN, "a colour space that is not known")
    repack = source.syntax == container.RLE
    boxes: list[list[Box]] = [[] for _ in frames]
    if look or repack:
        images = [_decoded(source, frame) for frame in frames]
        if look:
            boxes = [_each_once([find_text(image[..., channel]) for channel in range(3)]) for image in images]
        if any(boxes) or repack:
            return _as_rgb(images, boxes)
    if native:
        value = source.dataset.elements[PIXEL_DATA].value[: shape.frame_bytes * shape.frames]
        return CleanPixels(container.EXPLICIT, Element(PIXEL_DATA, "OB", value), [])
    streams: list[container.Buffer] = [
        without_comments(bytes(frame), jpeg_2000=source.syntax in container.JPEG_2000_FAMILY) for frame in frames
    ]
    if any(map(identifiers.stand_in_ends, streams)):
        return _as_rgb([_decoded(source, stream) for stream in streams], boxes)
    return CleanPixels(source.syntax, Element(PIXEL_DATA, "OB", fragments=streams), [])


def _as_rgb(images: list[NDArray[Any]], boxes: list[list[Box]]) -> CleanPixels:
    written = []
    for image, found in zip(images, boxes, strict=True):
        cleaned = np.array(image[..., :3], np.uint8)
        for channel in range(3):
            cleaned[..., channel] = blank(
                np.ascontiguousarray(cleaned[..., channel]), found, lowest=0, highest=255, black_is_high=False
            )
        written.append(cleaned.tobytes())
    element = Element(PIXEL_DATA, "OB", b"".join(written))
    changed = (Element(0x00280004, "CS", b"RGB"), Element(0x00280006, "US", b"\0\0"))
    return CleanPixels(container.EXPLICIT, element, _each_once(boxes), changed)
