"""JPEG lossless, process 14, selection value 1 (ITU-T T.81, annex H): what many modalities send and no library writes.

Differences from the pixel to the left, in Huffman categories. Only what the embedded hospital needs: one component,
at most 14 bits, the whole frame in one scan.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_LENGTHS = (0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0)
"""How many codes have each length 1..16: 15 in all, never one of ones alone (T.81 annex K.2)."""

MOST_BITS = 14
"""Differences of more bits would need more categories than there are codes."""


def encode_frame(stored: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> bytes:
    """The JPEG stream of one frame [rows, columns] whose values need `bits` bits. Raises ValueError above 14 bits."""
    if bits > MOST_BITS:
        raise ValueError(f"{bits} bits: expected at most {MOST_BITS}")
    rows, columns = stored.shape
    difference = _differences(stored.astype(np.int32), bits)
    category = _bit_length(np.abs(difference))
    symbols = _by_frequency(category)
    code, size = _codes(symbols)
    extra = np.where(difference < 0, difference + (1 << category) - 1, difference)
    word = (code[category].astype(np.int64) << category) | extra
    packed = _pack(word.ravel(), (size[category] + category).ravel())
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    table = bytes([0, *_LENGTHS, *symbols])
    scan = bytes([1, 1, 0, 1, 0, 0])
    header = b"\xff\xd8" + _segment(0xC3, frame) + _segment(0xC4, table) + _segment(0xDA, scan)
    return header + packed.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def _differences(values: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """From the pixel to the left; in the first column from the one above; the very first from half the range."""
    before = np.empty_like(values)
    before[:, 1:] = values[:, :-1]
    before[1:, 0] = values[:-1, 0]
    before[0, 0] = 1 << (bits - 1)
    return values - before


def _bit_length(magnitude: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.frexp(magnitude.astype(np.float64))[1].astype(np.int32)


def _by_frequency(category: NDArray[np.int32]) -> list[int]:
    """The categories, the most frequent first: it gets the shortest code."""
    counts = np.bincount(category.ravel(), minlength=MOST_BITS + 1)
    return [int(symbol) for symbol in np.argsort(-counts, kind="stable")[: sum(_LENGTHS)]]


def _codes(symbols: list[int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Code and its length by category (T.81 annex C)."""
    code, size = np.zeros(17, np.int32), np.zeros(17, np.int32)
    value, taken = 0, 0
    for length, count in enumerate(_LENGTHS, start=1):
        for symbol in symbols[taken : taken + count]:
            code[symbol], size[symbol] = value, length
            value += 1
        taken += count
        value <<= 1
    return code, size


def _pack(words: NDArray[np.int64], sizes: NDArray[np.int32]) -> bytes:
    """Words of the given numbers of bits (at most 32) one after another, padded with ones."""
    ends = np.cumsum(sizes.astype(np.int64))
    total = int(ends[-1])
    starts = ends - sizes
    cell, offset = starts >> 5, starts & 31
    shifted = words.astype(np.uint64) << (64 - offset - sizes).astype(np.uint64)
    cells = np.zeros(int(total // 32) + 2, np.uint64)
    high, low = shifted >> np.uint64(32), shifted & np.uint64(0xFFFFFFFF)
    # words do not overlap, so that adding is joining
    cells[: int(cell[-1]) + 1] += np.bincount(cell, weights=high.astype(np.float64)).astype(np.uint64)
    cells[1 : int(cell[-1]) + 2] += np.bincount(cell, weights=low.astype(np.float64)).astype(np.uint64)
    padding = -total % 8
    stream = bytearray(cells.astype(">u4").tobytes()[: (total + padding) // 8])
    if padding:
        stream[-1] |= (1 << padding) - 1
    return bytes(stream)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
