"""The three paths that take bytes from outside: a DICOM header, de-identification, a report.

A target takes any bytes and returns, or raises what is not in RADIA's tree of errors: that is a find. De-identification
is also held to its promise: what it calls clean parses, and holds no identifier that the seeds are full of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from radia.dicom import container
from radia.dicom.deidentify import Engine
from radia.dicom.facts import read_facts
from radia.errors import Refusal
from radia.reports import label_report
from radia.settings import DeidentifySettings

MARK = "Zwyxovitch"  # the last name of every patient of the seeds: in no vocabulary, too long to come by chance
_SCRATCH = Path(tempfile.mkdtemp(prefix="radia-fuzz-")) / "file.dcm"
_OPTIONS = ("clean_descriptors", "clean_structured_content", "clean_graphics", "retain_safe_private")
_ENGINES = tuple(
    Engine(bytes(range(32)), DeidentifySettings(clean_pixels=False, **dict.fromkeys(_OPTIONS, every)))
    for every in (False, True)
)


def dicom_header(raw: bytes) -> None:
    """Our parser of a file's elements, and the facts that intake reads through pydicom."""
    with suppress(Refusal):
        container.parse(raw)
    with suppress(Refusal):
        _SCRATCH.write_bytes(raw)
        read_facts(_SCRATCH)


def deidentification(raw: bytes) -> None:
    """A whole file through both the default profile and the one with every cleaning option."""
    for engine in _ENGINES:
        try:
            pieces = engine.deidentify_file(raw, "0" * 64).pieces
        except Refusal:
            continue
        clean = container.parse(b"".join(map(bytes, pieces))).dataset
        clean.elements.pop(container.PIXEL_DATA, None)  # a mutated length may call any bytes pixels
        if MARK.lower().encode() in container.encode(clean).lower():
            raise AssertionError("an identifier is in a file called clean")


def report(raw: bytes) -> None:
    """Any text as a report: 14 values of the four, each with a place inside the text."""
    text = raw.decode("utf-8", errors="replace")
    labels = label_report(text)
    for evidence in labels.evidence:
        if not 0 <= evidence.start <= evidence.end <= len(text):
            raise AssertionError("evidence outside the text")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dicom-header": dicom_header,
    "deidentification": deidentification,
    "report": report,
}


def seeds(target: str) -> list[bytes]:
    """Small valid inputs to start from: hard files of invented patients who share a last name, or reports."""
    if target == "report":
        tables = sorted((Path(__file__).parents[1] / "spec").glob("*.txt"))
        return [line.encode() for table in tables for line in table.read_text().splitlines() if len(line) > 20]
    from tests.spec import hard_files
    from tests.spec.hidden_places import KINDS, build

    syntaxes = list(hard_files.SYNTAXES)
    with patch.object(hard_files, "_LAST", [MARK]):
        return [build([kind], syntaxes[i % len(syntaxes)], i)[0] for i, kind in enumerate(list(KINDS)[::3])]
