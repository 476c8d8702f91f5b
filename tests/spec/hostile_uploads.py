"""Uploads that mean harm, or that fell on the floor: files cut, bent, swollen, disguised, and names full of tricks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

NAMES = (
    "../../etc/passwd",
    "..\\..\\windows\\system32\\a.dcm",
    "/dev/stdin",
    "<script>alert(1)</script>.png",
    "a\0b.dcm",
    "'; DROP TABLE people; --.dcm",
    "=cmd|' /C calc'!A0.png",
    "x" * 5000 + ".jpg",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "é\u202egnp.mcd",
    "",
)
Mutation = Callable[[bytes, np.random.Generator], bytes]


def hostile(seeds: Sequence[bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many (file name, content), each made from one of the seeds; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        content = seeds[number % len(seeds)]
        for _ in range(int(rng.integers(1, 4))):
            content = MUTATIONS[int(rng.integers(len(MUTATIONS)))](content, rng)
        yield NAMES[number % len(NAMES)], content[: 4 << 20]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def bent(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes are others, most of them in the header."""
    if not content:
        return content
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        reach = len(changed) if rng.random() < 0.3 else min(len(changed), 1500)
        changed[int(rng.integers(reach))] = int(rng.integers(256))
    return bytes(changed)


def huge(content: bytes, rng: np.random.Generator) -> bytes:
    """Rows, columns, frames, samples or lengths that no image has."""
    value = int(rng.choice([0, 1, 0x7FFF, 0xFFFE, 0xFFFF]))
    changed = bytearray(content)
    if content.startswith(b"\x89PNG") and len(content) > 33:
        struct.pack_into(
            ">LL", changed, 16, *(int(number) for number in rng.choice([1, 65_535, 2**31 - 1, 2**32 - 1], 2))
        )
        struct.pack_into(">L", changed, 29, zlib.crc32(bytes(changed[12:29])))
    elif content.startswith(b"\xff\xd8"):
        at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
        if 0 <= at < len(content) - 9:
            struct.pack_into(">HH", changed, at + 5, value, value)
    else:
        tag = (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x02\x00", b"\x28\x00\x00\x01")[int(rng.integers(4))]
        at = content.find(tag, 128)
        if 0 <= at < len(content) - 10:
            struct.pack_into("<H", changed, at + 8, value)
    return bytes(changed)


def lying(content: bytes, rng: np.random.Generator) -> bytes:
    """A length somewhere in a DICOM file is another: beyond the end, undefined, or nothing."""
    changed, at = bytearray(content), int(rng.integers(132, max(133, min(len(content), 2500))))
    if at + 4 < len(changed):
        struct.pack_into("<L", changed, at, int(rng.choice([0, 0xFFFFFFFF, 0xFFFFFFFE, 2**31, 2**24])))
    return bytes(changed)


def disguised(content: bytes, rng: np.random.Generator) -> bytes:
    """The start of another kind of file, or of something that is no image at all."""
    starts = (
        b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0" * 128 + b"DICM", b"GIF89a", b"II*\0", b"%PDF-1.7\n", b"PK\3\4",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"#!/bin/sh\n", b"8BPS", b"BM", b"%!PS-Adobe",
        b"\x1f\x8b",
    )  # fmt: skip
    start = starts[int(rng.integers(len(starts)))]
    return start + (content if rng.random() < 0.5 else content[len(start) :])


def bomb(content: bytes, rng: np.random.Generator) -> bytes:
    """A PNG of many megabytes of zeros in a few kilobytes."""
    width, height = (int(number) for number in rng.choice([1, 4_000, 20_000, 60_000], 2))
    packer = zlib.compressobj(9)
    zeros = packer.compress(bytes(min((width + 1) * height, 8 << 20))) + packer.flush()
    pieces = [b"\x89PNG\r\n\x1a\n"]
    for name, part in (
        (b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zeros),
        (b"IEND", b""),
    ):
        pieces += [struct.pack(">L", len(part)), name, part, struct.pack(">L", zlib.crc32(name + part))]
    return b"".join(pieces)


def nested(content: bytes, rng: np.random.Generator) -> bytes:
    """A DICOM file of sequences in sequences."""
    depth = int(rng.integers(10, 3000))
    opened = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return content[:400] + opened * depth


def scripted(content: bytes, rng: np.random.Generator) -> bytes:
    """Script where text is."""
    for was in (b"CHEST", b"DX", b"MONOCHROME2", b"ISO_IR 100", b"Essai^Un"):
        if was in content:
            return content.replace(was, (b"<script>alert(1)</script>" + was)[: len(was)])
    return content


def repeated(content: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes again and again."""
    return content[: int(rng.integers(1, 2000))] * int(rng.integers(2, 200))


def empty(content: bytes, rng: np.random.Generator) -> bytes:
    return b"" if rng.random() < 0.2 else bytes(rng.integers(0, 256, int(rng.integers(1, 400)), dtype=np.uint8))


MUTATIONS: tuple[Mutation, ...] = (
    cut, bent, bent, bent, huge, huge, lying, lying, disguised, bomb, nested, scripted, repeated, empty,
)  # fmt: skip


def seeds_of(pixels: np.ndarray, dicom: Sequence[bytes]) -> list[bytes]:
    """Whole files to start from: PNG of one and two bytes, JPEG plain and progressive, and the DICOM files."""
    from PIL import Image

    made = []
    for picture, kind, options in (
        (Image.fromarray(pixels), "PNG", {}),
        (Image.fromarray(pixels.astype(np.uint16) * 16), "PNG", {}),
        (Image.fromarray(pixels), "JPEG", {}),
        (Image.fromarray(pixels), "JPEG", {"progressive": True}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return [*made, *dicom]
