"""A whole run on part of the development feed: what it leaves behind names nobody."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from .conftest import prepare, working_in
from .identifiers import PRIVATE, identifiers_found

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "hospital-sample"
FILES = 30
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not here"),
    pytest.mark.xdist_group("main-job"),
]


def leaks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leaks", SAMPLE.parent / "checks" / "leaks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def planted() -> dict[str, dict[str, object]]:
    """The files taken, of both hospitals, those that hide something first, and what was planted in them."""
    truth = json.loads((SAMPLE / "truth.json").read_text())
    return {name: truth[name] for name in sorted(truth, key=lambda name: (-len(truth[name]["kinds"]), name))[:FILES]}


def test_no_log_no_storage_and_no_artefact_holds_an_identifier(
    planted: dict[str, dict[str, object]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipelines.run import retrain

    feed, data = tmp_path / "feed", tmp_path / "data"
    for name in planted:
        (feed / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SAMPLE / name, feed / name)
    data.mkdir()
    prepare(data)
    with working_in(data):
        retrain(inbox=feed / "inbox", labels=SAMPLE / "labels.csv")
    module = leaks()
    tokens = {token for entry in planted.values() for token in module.tokens(entry) if len(token) >= 6}
    tokens -= {token for token in tokens if re.fullmatch(r"[\d/.-]{8,10}", token)}  # one's date is another's moved one
    assert len(tokens) > 200
    outcomes = pd.concat(map(pd.read_parquet, (data / "clean").glob("*/outcomes.parquet")))
    assert (outcomes["outcome"] == "clean").sum() >= FILES - 2
    found = identifiers_found(data, tokens)
    assert {name: len(held) for name, held in found.items()} == {}
    said = "".join(capfd.readouterr())
    assert [token for token in tokens if token.lower() in said.lower()] == []
    kept = {path.parts[len(data.parts)] for path in data.rglob("*") if path.is_file()}
    assert kept >= {"dagster", "archive", "ledger.db", "mlflow.db", "mlartifacts", *PRIVATE - {"quarantine"}}


def test_the_search_finds_what_is_packed(tmp_path: Path) -> None:
    pd.DataFrame({"a": ["Archambault"] * 50}).to_parquet(tmp_path / "table.parquet", compression="zstd")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "table.csv").write_text("Archambault")
    assert identifiers_found(tmp_path, ["Archambault"]) == {"table.parquet": ["Archambault"]}
