"""Pixels of CR and DX images: the one reader for models and people, and the lossless writers that cleaning needs.

`read_gray` and `open_film` are the only way from DICOM to gray pixels, whole or by rows. What does not belong here:
finding text, resizing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset as PydicomDataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array

from radia.dicom import container
from radia.dicom.codestream import encode_jpeg_lossless
from radia.errors import Reason, Refusal

_TAIL = (0.5, 99.5)  # percentiles between which pixels are spread where a file gives no window


def read_gray(source: PydicomDataset | Path | str | BinaryIO) -> NDArray[np.float32]:
    """An image as it is meant to be seen: float32 [rows, cols] in 0..1, bone white.

    Applies, in the order of PS3.4 N.2: the unused bits masked, modality LUT or rescale, VOI LUT or the first window
    (a robust one where there is none), and the inversion that MONOCHROME1 or, for raw images, the sign of the pixel
    intensity relationship asks for. Padding pixels are black. Colour becomes luminance; of several frames, the first.
    Raises Refusal (NO_PIXEL_DATA, UNREADABLE_PIXELS, UNSUPPORTED_SYNTAX and those of a file that is no DICOM).
    """
    film = open_film(source)
    return film.rows(0, film.shape[0])


@dataclass(frozen=True)
class Film:
    """Any rows of an image as `read_gray` shows them. table: of `gray_by_value`; None: shown already."""

    stored: NDArray[Any]
    table: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.stored.shape[0], self.stored.shape[1]

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """[stop - start, columns], float32 in 0..1, bone white."""
        part = self.stored[start:stop]
        return part if self.table is None else looked_up(part, self.table)


def open_film(source: PydicomDataset | Path | str | BinaryIO) -> Film:
    """The image of `read_gray`, rows on demand, so that it is never held in gray as a whole. Raises the same."""
    dataset = source if isinstance(source, PydicomDataset) else _read(source)
    stored = stored_pixels(dataset)
    if stored.ndim == 3:
        return Film(_luminance(stored, dataset))
    table = gray_by_value(stored, dataset)
    if table is None:
        return Film(np.ascontiguousarray(_shown(stored, stored, dataset), np.float32))
    return Film(stored, table)


def gray_by_value(stored: NDArray[Any], dataset: PydicomDataset) -> NDArray[np.float32] | None:
    """What each value of one byte or two is shown as, in 0..1, by its bits as a number without sign: [256] or [65536].

    stored: [rows, cols] as `stored_pixels` gives them. None for deeper values and for fractions.
    """
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        return None
    # What is shown of a stored value depends on nothing else: one table of all values, and one look into it a pixel.
    every = np.arange(1 << 8 * stored.dtype.itemsize, dtype=f"u{stored.dtype.itemsize}").view(stored.dtype)
    return _shown(every, stored, dataset)


def looked_up(stored: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """The table's entry for each stored value, of the table's type. table: as `gray_by_value` orders it."""
    import cv2

    unsigned = np.ascontiguousarray(stored.view(f"u{stored.dtype.itemsize}"))
    return np.asarray(cv2.LUT(unsigned, table.reshape(1, -1)), dtype=table.dtype)


def stored_pixels(dataset: PydicomDataset) -> NDArray[Any]:
    """The first frame's stored values, [rows, cols] or [rows, cols, 3], without what lies in unused bits."""
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise Refusal(Reason.NO_PIXEL_DATA)
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
    except AttributeError as error:
        raise Refusal(Reason.UNSUPPORTED_SYNTAX, "none is named") from error
    if syntax not in container.SUPPORTED:
        raise Refusal(Reason.UNSUPPORTED_SYNTAX)
    try:
        stored = np.asarray(_decoded(dataset, syntax))
    except BaseException as error:  # decoders raise whatever they like (Rust's panics are no Exception)
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise Refusal(Reason.UNREADABLE_PIXELS, type(error).__name__) from error
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)  # of a big-endian file they come as they lie
    if stored.ndim == 3 and stored.shape[-1] not in (3, 4):
        raise Refusal(Reason.UNREADABLE_PIXELS, "unexpected shape")
    return stored if stored.ndim == 3 else _used_bits(stored, dataset)


def _decoded(dataset: PydicomDataset, syntax: str) -> NDArray[Any]:
    """The first frame. Gray JPEG of eight bits goes through libjpeg-turbo, three times as fast as pydicom's choice;
    what it cannot read may still be read by that.
    """
    if syntax == container.JPEG_BASELINE and dataset.get("SamplesPerPixel") == 1 and dataset.get("BitsStored") == 8:
        with suppress(Exception):
            return pixel_array(dataset, index=0, decoding_plugin="pillow")
    return pixel_array(dataset, index=0)


def _read(source: Path | str | BinaryIO) -> PydicomDataset:
    if isinstance(source, str | Path) and not Path(source).stat().st_size:
        raise Refusal(Reason.EMPTY_FILE)
    try:
        dataset = pydicom.dcmread(source, force=False)
    except pydicom.errors.InvalidDicomError as error:
        raise Refusal(Reason.NOT_DICOM) from error
    except EOFError as error:
        raise Refusal(Reason.TRUNCATED) from error
    except Exception as error:
        raise Refusal(Reason.UNREADABLE, type(error).__name__) from error
    return dataset


def _used_bits(stored: NDArray[Any], dataset: PydicomDataset) -> NDArray[Any]:
    """What lies between the high bit and the low bit of the stored value; old overlays hide in the rest (PS3.5 8.1)."""
    if stored.dtype.kind == "f":
        return stored
    allocated = stored.dtype.itemsize * 8
    bits = _whole_number(dataset, "BitsStored") or allocated
    high = _whole_number(dataset, "HighBit")
    low = 0 if high is None else max(high + 1 - bits, 0)
    native = dataset.file_meta.TransferSyntaxUID in container.NATIVE
    if bits >= allocated or (low and not native):
        return stored
    unsigned = stored.view(f"u{stored.dtype.itemsize}") >> low & ((1 << bits) - 1)
    if not dataset.get("PixelRepresentation"):
        return unsigned
    sign = 1 << (bits - 1)
    return ((unsigned.astype(np.int32) ^ sign) - sign).astype(stored.dtype)


def _luminance(stored: NDArray[Any], dataset: PydicomDataset) -> NDArray[np.float32]:
    top = float((1 << (_whole_number(dataset, "BitsStored") or 8)) - 1)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    gray: NDArray[np.float32] = np.clip(stored[..., :3].astype(np.float32) @ weights / top, 0, 1)
    return gray


def _shown(values: NDArray[Any], stored: NDArray[Any], dataset: PydicomDataset) -> NDArray[np.float32]:
    """Stored values as they are meant to be seen, in 0..1; `stored`: all of the image's, for what depends on them."""
    padding = _padding(dataset)
    if padding is not None and not 0 < int(padding.holds(stored).sum()) < stored.size:
        padding = None
    shown = _voi(values, stored, dataset, padding)
    if _bone_is_dark(dataset):
        shown = 1.0 - shown
    if padding is not None:
        shown[padding.holds(values)] = 0.0
    return shown


@dataclass(frozen=True)
class _Padding:
    """The stored values that stand for no image (PS3.3 C.7.5.1.1.2), both ends included."""

    low: int
    high: int

    def holds(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((stored >= self.low) & (stored <= self.high))


def _padding(dataset: PydicomDataset) -> _Padding | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    return _Padding(*sorted((value, limit if isinstance(limit, int) else value)))


def _modality(stored: NDArray[Any], dataset: PydicomDataset) -> NDArray[np.float32]:
    table = _lut_item(dataset, "ModalityLUTSequence")
    if table is not None:
        return _looked_up(stored, *table)[0].astype(np.float32)
    slope, intercept = _first_number(dataset, "RescaleSlope"), _first_number(dataset, "RescaleIntercept")
    values = stored.astype(np.float32)
    if slope is not None and slope != 0:
        values *= np.float32(slope)
    if intercept is not None:
        values += np.float32(intercept)
    return values


def _voi(
    stored: NDArray[Any], image: NDArray[Any], dataset: PydicomDataset, padding: _Padding | None
) -> NDArray[np.float32]:
    values = _modality(stored, dataset)
    table = _lut_item(dataset, "VOILUTSequence")
    if table is not None:
        output, top = _looked_up(values.astype(np.int64), *table)
        return (output / top).astype(np.float32)
    center, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    if center is not None and width is not None and width > 0:
        return _windowed(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    inside = image.ravel() if padding is None else image[~padding.holds(image)]
    low, high = np.percentile(_modality(inside[:: max(inside.size // 200_000, 1)], dataset), _TAIL)
    if high <= low:
        all_values = _modality(inside, dataset)
        low, high = float(all_values.min()), float(all_values.max())
    return _spread(values, float(low) + float(high - low) / 2, max(float(high - low), 1e-6))


def _windowed(values: NDArray[np.float32], center: float, width: float, function: str) -> NDArray[np.float32]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        curve: NDArray[np.float32] = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60)))
        return curve
    if function == "LINEAR_EXACT" or width <= 1:
        return _spread(values, center, width)
    return _spread(values, center - 0.5, width - 1)


def _spread(values: NDArray[np.float32], center: float, width: float) -> NDArray[np.float32]:
    shown: NDArray[np.float32] = np.clip((values - np.float32(center)) / np.float32(width) + np.float32(0.5), 0, 1)
    return shown


def _bone_is_dark(dataset: PydicomDataset) -> bool:
    if dataset.get("PresentationIntentType") == "FOR PROCESSING" and "PixelIntensityRelationshipSign" in dataset:
        # less X-ray, as behind bone, is a lower value
        return _first_number(dataset, "PixelIntensityRelationshipSign") == 1
    return str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"


def _whole_number(dataset: PydicomDataset, keyword: str) -> int | None:
    """What the layout of pixels hangs on, 0..64; None where it is missing. Raises Refusal where it is none."""
    try:
        value = dataset.get(keyword)
        number = None if value in (None, "") else int(value)
    except Exception as error:  # pydicom converts a value when it is asked for, and raises whatever it likes
        raise Refusal(Reason.UNREADABLE_PIXELS, f"{keyword} is no number") from error
    if number is not None and not 0 <= number <= 64:
        raise Refusal(Reason.UNREADABLE_PIXELS, f"{keyword} is out of range")
    return number


def _first_number(dataset: PydicomDataset, keyword: str) -> float | None:
    try:
        value = dataset.get(keyword)
        value = value[0] if isinstance(value, MultiValue) and value else value
        number = None if value in (None, "") or isinstance(value, MultiValue) else float(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and np.isfinite(number) else None


def _lut_item(dataset: PydicomDataset, keyword: str) -> tuple[NDArray[np.int64], int, int] | None:
    """A LUT's entries, its first mapped value and its depth in bits; None where there is none that can be used."""
    items = dataset.get(keyword)
    if not items or "LUTDescriptor" not in items[0] or "LUTData" not in items[0]:
        return None
    try:
        count, first, bits = (int(number) for number in items[0].LUTDescriptor)
    except (TypeError, ValueError):
        return None
    if not -32768 <= first <= 65535:
        return None
    count = count & 0xFFFF or 65536
    first -= 65536 if dataset.get("PixelRepresentation") and first > 32767 and keyword == "ModalityLUTSequence" else 0
    content = items[0].LUTData
    if isinstance(content, bytes):
        wide = len(content) >= 2 * count
        entries = np.frombuffer(content, "<u2" if wide else "u1").astype(np.int64)
    else:
        entries = np.atleast_1d(np.asarray(content, np.int64)) & 0xFFFF
    return (entries[:count], first, bits) if len(entries) else None


def _looked_up(
    values: NDArray[Any], entries: NDArray[np.int64], first: int, bits: int
) -> tuple[NDArray[np.int64], float]:
    index = np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)
    top = float(max((1 << bits) - 1, int(entries.max()))) if 0 < bits <= 16 else float(max(int(entries.max()), 1))
    return entries[index], top


# --- writing, for cleaned pixels --------------------------------------------------------------------------------------


def encode_lossless(
    pixels: NDArray[Any], syntax: str, *, bits: int, allocated: int
) -> tuple[str, container.Buffer | list[container.Buffer]]:
    """Gray stored values [rows, cols] in the family of a transfer syntax, without loss.

    Returns the syntax written and the value: bytes for native syntaxes (explicit little endian), else fragments.
    A lossy syntax becomes the lossless one of its family. Raises Refusal where there is no encoder for the pixels.
    """
    if syntax in container.NATIVE:
        raw = np.ascontiguousarray(pixels).astype(f"<{pixels.dtype.kind}{allocated // 8}").tobytes()
        return container.EXPLICIT, raw
    signed = pixels.dtype.kind == "i"
    rows, cols = pixels.shape
    if syntax in container.JPEG_FAMILY:
        unsigned = (pixels.astype(np.int32) & ((1 << bits) - 1)).astype(np.uint32)
        return container.JPEG_LOSSLESS_SV1, [encode_jpeg_lossless(unsigned, max(bits, 2))]
    if syntax == container.RLE:
        import rle.rle

        typed = np.ascontiguousarray(pixels).astype(f"<{pixels.dtype.kind}{allocated // 8}").tobytes()
        return container.RLE, [bytes(rle.rle.encode_frame(typed, rows, cols, 1, allocated, "<"))]
    wide = 1 if bits <= 8 else 2
    if syntax in container.JPEG_LS_FAMILY:
        import jpeg_ls

        masked = (pixels.astype(np.int32) & ((1 << bits) - 1)).astype(f"<u{wide}").tobytes()
        return container.JPEG_LS, [bytes(jpeg_ls.encode_buffer(masked, rows, cols, 1, max(bits, 2)))]
    import openjpeg.utils

    typed = np.ascontiguousarray(pixels).astype(f"<{pixels.dtype.kind}{wide}").tobytes()
    frame = openjpeg.utils.encode_buffer(typed, cols, rows, 1, bits, signed, photometric_interpretation=2)
    return container.JPEG_2000_LOSSLESS, [bytes(frame)]
