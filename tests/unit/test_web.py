"""The web demo over a small model: what it answers to good and to bad uploads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from radia.findings import FINDINGS
from radia.workspace import Workspace


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    from radia import registry
    from radia.model import Preprocessing, build, describe, save_checkpoint
    from radia.web import create_app

    site = Workspace(tmp_path_factory.mktemp("web"))
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=1)
    save_checkpoint(site.root / "model", model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.4)))
    registry.register_champion(site, site.root / "model", description="for tests")
    return create_app(site, open_demo=True).test_client()


def png(mode: str = "L", size: tuple[int, int] = (90, 70)) -> bytes:
    values = np.random.default_rng(2).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    picture = Image.fromarray(values).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def upload(content: bytes, name: str = "film.png") -> dict[str, object]:
    return {"image": (io.BytesIO(content), name)}


def test_a_picture_gets_14_probabilities_with_thresholds(client: FlaskClient) -> None:
    answer = client.post("/api/predict", data=upload(png()))
    assert answer.status_code == 200
    findings = answer.get_json()["findings"]
    assert set(findings) == set(FINDINGS)
    for entry in findings.values():
        assert 0 <= entry["probability"] <= 1
        assert entry["above_threshold"] == (entry["probability"] >= entry["threshold"] == 0.4)


def test_the_page_shows_a_heat_map_for_every_finding(client: FlaskClient) -> None:
    page = client.post("/demo", data=upload(png())).get_data(as_text=True)
    assert page.count('data-map="data:image/png;base64,') == len(FINDINGS)
    assert "Assistance, not diagnosis" in page


def test_an_example_of_the_embedded_hospital_can_be_tried(client: FlaskClient) -> None:
    assert client.get("/demo/example/1").status_code == 200
    assert client.get("/demo/example/99").status_code == 404


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"no image at all", "not a DICOM file"),
        (png()[:60], "not a readable PNG or JPEG file"),
        (b"\xff\xd8\xff\xe0 broken", "not a readable PNG or JPEG file"),
        (b"\0" * 128 + b"DICM" + b"\1" * 40, ""),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(client: FlaskClient, content: bytes, said: str) -> None:
    answer = client.post("/api/predict", data=upload(content))
    assert answer.status_code == 422
    assert said in answer.get_json()["error"]


def test_a_form_without_a_file_is_told_so(client: FlaskClient) -> None:
    assert client.post("/demo", data={}).status_code == 400


def test_nothing_of_another_host_is_loaded_and_no_answer_is_cached(client: FlaskClient) -> None:
    answer = client.get("/demo")
    assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "http://" not in answer.get_data(as_text=True)


def test_a_site_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    from radia.web import create_app

    client = create_app(Workspace(tmp_path), open_demo=True).test_client()
    assert "no model is in use yet" in client.get("/demo").get_data(as_text=True)
    assert client.get("/healthz").get_json() == {"status": "ok", "model": None}
