"""Looks for identifiers in everything that a run leaves behind, packed files included."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd
import pydicom

PRIVATE = frozenset({"landing", "quarantine", "keys"})
"""The folders of a site that may hold identifiers."""


def identifiers_found(data: Path, tokens: Iterable[str]) -> dict[str, list[str]]:
    """The files of a site outside the landing zone that hold a token in UTF-8, Latin-1 or UTF-16, in any case.

    A number counts where it stands alone: as part of a digest, a new UID or a fraction it is chance.
    """
    needles = {token: _pattern(token) for token in tokens}
    found = {}
    for path in sorted(data.rglob("*")):
        name = path.relative_to(data)
        if not path.is_file() or name.parts[0] in PRIVATE or path.suffix == ".u8":
            continue
        content = str(name).encode() + b"\n".join(_contents(path.read_bytes())).lower()
        held = [token for token, pattern in needles.items() if pattern.search(content)]
        if held:
            found[str(name)] = held
    return found


def _pattern(token: str) -> re.Pattern[bytes]:
    lower = token.lower()
    forms = {lower.encode(encoding, "ignore").lower() for encoding in ("utf-8", "utf-16-le", "latin-1")}
    written = b"|".join(map(re.escape, sorted(forms)))
    return re.compile(b"(?<![0-9a-f.])(?:" + written + b")(?![0-9a-f])" if token.isdigit() else written)


def _contents(raw: bytes) -> Iterator[bytes]:
    """A file's bytes, and what is packed in them."""
    if raw[128:132] == b"DICM":
        yield _header(raw)
        return
    yield raw
    if raw[:4] == b"PAR1":
        yield pd.read_parquet(BytesIO(raw)).to_csv().encode()
    elif raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif raw[:4] == b"PK\3\4":
        with zipfile.ZipFile(BytesIO(raw)) as packed:
            for member in packed.namelist():
                yield from _contents(packed.read(member))


def _header(raw: bytes) -> bytes:
    """A DICOM file without the bulk of its pixels, in which short numbers stand by chance."""
    pixels = pydicom.dcmread(BytesIO(raw)).PixelData
    at = raw.find(bytes(pixels[:4096]))
    return raw[: at + 2048] + raw[at + len(pixels) :]
