"""The development feed of two hospitals: headers of every file come out without what was planted in them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from radia.dicom.deidentify import Engine
from radia.settings import DeidentifySettings

SHARED = Path(__file__).resolve().parents[3] / "shared"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "hospital-sample").is_dir(), reason=f"{SHARED} is not here"),
]


def test_no_planted_identifier_comes_through(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("leaks", SHARED / "checks" / "leaks.py")
    assert spec is not None
    assert spec.loader is not None
    leaks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(leaks)
    truth = json.loads((SHARED / "hospital-sample" / "truth.json").read_text())
    engine = Engine(bytes(range(32)), DeidentifySettings(clean_pixels=False))
    found = []
    for name, planted in sorted(truth.items()):
        clean = engine.deidentify_file((SHARED / "hospital-sample" / name).read_bytes(), "0" * 64)
        out = tmp_path / "clean.dcm"
        out.write_bytes(b"".join(map(bytes, clean.pieces)))
        raw = leaks.header_bytes(out)
        found += [(name, planted["kinds"]) for token in leaks.tokens(planted) if leaks.contains(raw, token)]
    assert len(truth) == 200
    assert found == []
