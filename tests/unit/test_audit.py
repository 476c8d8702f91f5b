"""The whole audit: what DVC and MLflow keep is held to the ledger too."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from radia import audit, registry
from radia.errors import ChainBroken
from radia.ledger import Anchor, Ledger, open_ledger
from radia.workspace import Workspace


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def store(site: Workspace, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    path = site.archive / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    ledger, chance = open_ledger(site), random.Random(1)
    for _ in range(3):
        files = [{"md5": store(site, chance.randbytes(50)), "relpath": f"{number}.parquet"} for number in range(4)]
        listing = store(site, json.dumps(files).encode(), ".dir")
        ledger.append("snapshot", actor="radia", outputs={"snapshot": "5" * 64, "dvc": listing})
    store(site, b"an object that no snapshot names")
    return ledger


class TestObjects:
    def test_are_counted_when_whole(self, site: Workspace, ledger: Ledger) -> None:
        assert audit.verify_objects(site, ledger) == 16

    def test_every_change_is_found_and_named(self, site: Workspace, ledger: Ledger) -> None:
        chance = random.Random(2)
        objects = sorted((site.archive / ".dvc" / "cache").rglob("*/??/*"))
        for _ in range(150):
            path = chance.choice(objects)
            content = path.read_bytes()
            changed = bytearray(content)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.2:
                path.unlink()
            else:
                path.write_bytes(changed)
            if path.is_file() or path.parent.name + path.name != store_name(b"an object that no snapshot names"):
                with pytest.raises(ChainBroken, match=f"DVC's object {path.parent.name}{path.name} "):
                    audit.verify_objects(site, ledger)
            path.write_bytes(content)
        assert audit.verify_objects(site, ledger) == 16

    def test_of_an_archive_without_dvc_are_none(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path / "empty")
        assert audit.verify_objects(site, open_ledger(site)) == 0


def store_name(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class TestModels:
    @pytest.fixture(autouse=True)
    def kept(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """The record's digest of each version, in MLflow's stead."""
        kept = {"cxr-candidate/1": "a" * 64, "cxr-candidate/2": "b" * 64}
        monkeypatch.setattr(registry, "record_digest", lambda _site, name, version: kept[f"{name}/{version}"])
        return kept

    @pytest.fixture
    def registered(self, ledger: Ledger) -> Ledger:
        ledger.append("register", actor="radia", outputs={"cxr-candidate/1": "c" * 32, "record": "a" * 64})
        ledger.append("register", actor="radia", outputs={"cxr-candidate/2": "d" * 32, "record": "b" * 64})
        return ledger

    def test_are_counted_when_whole(self, site: Workspace, registered: Ledger) -> None:
        assert audit.verify_models(site, registered) == 2

    def test_whose_record_was_changed_are_named(
        self, site: Workspace, registered: Ledger, kept: dict[str, str]
    ) -> None:
        kept["cxr-candidate/2"] = "f" * 64
        with pytest.raises(ChainBroken, match="MLflow keeps of cxr-candidate/2 was changed after event 5"):
            audit.verify_models(site, registered)

    def test_carry_anchors_that_show_a_cut_tail(
        self, site: Workspace, registered: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        anchor = Anchor(9, "e" * 64)

        def versions(_: Workspace, name: str) -> list[registry.Version]:
            return [registry.Version(name, "1", "run", {"ledger": str(anchor)}, (), "", "", "")]

        monkeypatch.setattr(registry, "versions", versions)
        with pytest.raises(ChainBroken, match=r"event 6 .* missing: an anchor proves 9 events"):
            audit.audit(site, registered)
