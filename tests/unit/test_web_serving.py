"""The model in use is exchanged beside the requests; without the registry the last one goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from radia import registry
from radia.errors import NoModel, RegistryError
from radia.findings import FINDINGS
from radia.model import Preprocessing, build, describe, save_checkpoint
from radia.web import create_app
from radia.web.serving import ModelInUse
from radia.workspace import Workspace


def checkpoint(folder: Path, seed: int) -> Path:
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=seed)
    save_checkpoint(folder, model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.5)))
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    site = Workspace(tmp_path)
    registry.register_champion(site, checkpoint(tmp_path / "first", seed=1), description="for tests")
    return site


def test_another_model_is_served_without_a_restart_and_who_has_the_first_keeps_it(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelInUse(site, look_seconds=0.0)
    first, second = model.now(), checkpoint(site.root / "second", seed=2)
    real = registry.champion(site)
    assert real is not None
    monkeypatch.setattr(registry, "champion", lambda _site: replace(real, version="2"))
    monkeypatch.setattr(registry, "checkpoint_folder", lambda _site, uri: {"mlflow:cxr/2": second}[uri])
    for _ in range(600):
        if model.now().version == "2":
            break
        time.sleep(0.1)
    assert model.now().version == "2"
    assert first.version == "1"
    pairs = zip(first.model.parameters(), model.now().model.parameters(), strict=True)
    assert not all((a == b).all() for a, b in pairs)


def test_without_the_registry_the_last_model_goes_on_and_the_page_says_so(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_site: Workspace) -> registry.Version:
        raise RegistryError("the registry does not answer")

    app = create_app(site, open_demo=True)
    model: ModelInUse = app.extensions["radia"].model
    model.look()
    real = registry.champion
    monkeypatch.setattr(registry, "champion", unreachable)
    model.look()
    assert model.now().unreachable_since is not None
    page = app.test_client().get("/demo", headers={"Accept-Language": "en"}).get_data(as_text=True)
    assert "cxr version 1" in page
    assert "The model registry cannot be reached" in page
    monkeypatch.setattr(registry, "champion", real)
    model.look()
    assert model.now().unreachable_since is None


def test_an_approval_against_the_gate_is_shown_in_red(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.champion

    def overridden(site: Workspace) -> registry.Version | None:
        found = real(site)
        return found and replace(found, tags={"override": "new device", "approver": "Dr Roy"})

    monkeypatch.setattr(registry, "champion", overridden)
    page = create_app(site, open_demo=True).test_client().get("/demo", headers={"Accept-Language": "en"})
    assert b'class="error" role="alert">Approved against the gate by Dr Roy: new device' in page.data


def test_before_any_model_is_in_use_a_question_is_refused_and_the_app_is_well(tmp_path: Path) -> None:
    with pytest.raises(NoModel):
        ModelInUse(Workspace(tmp_path)).now()
    assert create_app(Workspace(tmp_path), open_demo=True).test_client().get("/healthz").get_json()["model"] is None
