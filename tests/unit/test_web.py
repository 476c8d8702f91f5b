"""The web demo over a small model: what it answers to good and to bad uploads."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from radia.familiarity import Familiarity, save
from radia.findings import FINDINGS
from radia.model import PHANTOMS
from radia.synthetic.phantom import examples
from radia.web.accounts import Accounts
from radia.web.language import texts
from radia.web.reading import Call
from radia.workspace import Workspace
from tests.spec.hostile_uploads import hostile, seeds_of


def with_model(site: Workspace, familiarity: Familiarity | None = None, **described: str) -> Workspace:
    from radia import registry
    from radia.model import Preprocessing, build, describe, save_checkpoint

    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=1)
    thresholds = dict.fromkeys(FINDINGS, 0.4)
    save_checkpoint(site.root / "model", model, describe(model, thresholds=thresholds, **described))
    if familiarity:
        save(site.root / "model", familiarity)
    registry.register_champion(site, site.root / "model", description="for tests")
    return site


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    from radia.web import create_app

    return create_app(with_model(Workspace(tmp_path_factory.mktemp("web"))), open_demo=True).test_client()


@lru_cache(maxsize=1)
def film() -> Image.Image:
    return Image.fromarray(examples(1, seed=3, side=192)[0])


def png(picture: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (picture or film()).save(buffer, "PNG")
    return buffer.getvalue()


def upload(content: bytes, name: str = "film.png") -> dict[str, object]:
    return {"image": (io.BytesIO(content), name)}


def test_a_picture_gets_14_probabilities_with_thresholds(client: FlaskClient) -> None:
    answer = client.post("/api/predict", data=upload(png()))
    assert answer.status_code == 200
    findings = answer.get_json()["results"][0]["findings"]
    assert set(findings) == set(FINDINGS)
    for entry in findings.values():
        assert 0 <= entry["probability"] <= 1
        assert entry["call"] in ("above", "unsure", "below")
        assert entry["above_threshold"] == (entry["probability"] >= entry["threshold"] == 0.4)


def test_the_page_shows_a_heat_map_for_every_finding(client: FlaskClient) -> None:
    page = client.post("/demo/read", data=upload(png())).get_data(as_text=True)
    assert page.count('data-map="data:image/png;base64,') == len(FINDINGS)
    assert "Assistance, not diagnosis" in client.get("/demo").get_data(as_text=True)


def test_an_example_of_the_embedded_hospital_can_be_tried(client: FlaskClient) -> None:
    content = client.get("/demo/example/2")
    assert content.mimetype == "application/dicom"
    assert client.post("/api/predict", data=upload(content.data)).status_code == 200
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
    assert client.post("/demo/read", data={}).status_code == 400


def test_nothing_of_another_host_is_loaded_and_no_answer_is_cached(client: FlaskClient) -> None:
    answer = client.get("/demo")
    assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "http://" not in answer.get_data(as_text=True)


def test_a_site_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    from radia.web import create_app

    client = create_app(Workspace(tmp_path), open_demo=True).test_client()
    page = client.get("/demo", headers={"Accept-Language": "fr"}).get_data(as_text=True)
    assert page.startswith("<!doctype html>")
    assert "<h1>Aucun modèle n&#39;est encore en service.</h1>" in page
    assert "radia promote" in page
    assert client.get("/healthz").get_json() == {"status": "ok", "model": None}


class TestWhatTheModelMayNotBeAsked:
    def test_no_chest_film_is_refused_with_the_reason(self, client: FlaskClient) -> None:
        noise = Image.fromarray(np.random.default_rng(2).integers(0, 255, (70, 90), dtype=np.uint8))
        for picture in (noise, Image.new("L", (300, 300), 90)):
            answer = client.post("/api/predict", data=upload(png(picture)))
            assert answer.status_code == 422
            assert answer.get_json()["error"].startswith("not a frontal chest radiograph: the pixels have nothing")

    @pytest.mark.parametrize(("limit", "status"), [(1e3, 200), (1e-6, 422)])
    def test_an_image_unlike_the_training_is_refused_and_one_like_it_is_not(
        self, tmp_path: Path, limit: float, status: int
    ) -> None:
        from radia.web import create_app

        site = with_model(
            Workspace(tmp_path), Familiarity(np.zeros(176, np.float32), np.eye(176, dtype=np.float32), limit)
        )
        answer = create_app(site, open_demo=True).test_client().post("/api/predict", data=upload(png()))
        assert answer.status_code == status
        if status == 422:
            assert answer.get_json()["error"].startswith("unlike the images that the model was trained on")
        else:
            assert 0 < answer.get_json()["results"][0]["distance_from_training"] < 1

    def test_a_stand_in_answers_and_says_that_it_means_nothing(self, tmp_path: Path) -> None:
        from radia.web import create_app

        far = Familiarity(np.zeros(176, np.float32), np.eye(176, dtype=np.float32), 1e-6)
        client = create_app(with_model(Workspace(tmp_path), far, source=PHANTOMS), open_demo=True).test_client()
        (result,) = client.post("/api/predict", data=upload(png())).get_json()["results"]
        assert result["distance_from_training"] > 1
        french = {"Accept-Language": "fr"}
        assert "Ce modèle de remplacement a appris sur des" in client.get("/demo", headers=french).get_data(
            as_text=True
        )
        page = client.post("/demo/read", data=upload(png()), headers=french).get_data(as_text=True)
        assert "Ce cliché ne ressemble pas" in page
        assert "Épanchement pleural" in page


def test_the_languages_have_the_same_texts_and_all_findings_and_calls() -> None:
    def keys(part: object, above: str = "") -> set[str]:
        return {above} if not isinstance(part, dict) else {k for n, v in part.items() for k in keys(v, f"{above}/{n}")}

    english, french = texts("en"), texts("fr")
    assert keys(english) == keys(french)
    for language in (english, french):
        assert tuple(language["demo"]["findings"]) == FINDINGS
        assert tuple(language["demo"]["calls"]) == get_args(Call)


@pytest.mark.parametrize(
    ("host", "asked", "somebody", "open_"),
    [
        ("127.0.0.1", None, False, True),
        ("127.0.0.1", None, True, False),
        ("127.0.0.1", False, False, False),
        ("0.0.0.0", None, False, False),
        ("radia.hospital", None, False, False),
    ],
)
def test_the_demo_is_open_to_this_machine_alone_and_while_nobody_has_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, asked: bool | None, somebody: bool, open_: bool
) -> None:
    from radia.web import server

    served: list[Flask] = []
    monkeypatch.setattr(server, "_threads", lambda app, **_where: served.append(app))
    site = Workspace(tmp_path)
    if somebody:
        Accounts(site.web / "people.db").add("lea", roles=["lead"], password="three words of hers")
    server.serve(site, host=host, port=8000, open_demo=asked)
    assert served[0].extensions["radia"].open_demo is open_


class TestHostileUploads:
    def test_never_end_in_an_error_of_the_server_or_in_a_stored_file(self, client: FlaskClient) -> None:
        site: Workspace = client.application.extensions["radia"].site
        assert client.post("/api/predict", data=upload(png())).status_code == 200  # the ledger and its key are made
        assert client.post("/api/report/structured-report", data=upload(as_dicom())).status_code == 422  # the other key
        before = {path.relative_to(site.root) for path in site.root.rglob("*")}
        whole = seeds_of(np.asarray(film()), [as_dicom(), as_dicom(JPEGBaseline8Bit), as_dicom(RLELossless)])
        addresses = ("/api/predict", "/demo/read", "/demo/film", "/api/report/secondary-capture")
        answered = set()
        for number, (name, content) in enumerate(hostile(whole, 240, seed=5)):
            answer = client.post(addresses[number % 4], data=upload(content, name))
            assert answer.status_code in ((200, 400, 422) if not name else (200, 422)), number
            assert b"<script>alert" not in answer.data
            answered.add(answer.status_code)
        assert answered >= {200, 422}  # some did less harm than they meant to
        after = {path.relative_to(site.root) for path in site.root.rglob("*")}
        assert {path for path in after - before if "ledger" not in path.name} == set()

    def test_a_server_that_is_full_says_when_to_come_again(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client.application.extensions["radia.uploads"].queue, "_longest", 0)
        for address in ("/api/predict", "/demo/read"):
            answer = client.post(address, data=upload(png()))
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1


def as_dicom(syntax: str = ExplicitVRLittleEndian) -> bytes:
    dataset, eight_bits = Dataset(), syntax == JPEGBaseline8Bit
    pixels = np.asarray(film()) if eight_bits else np.asarray(film(), np.uint16) * 16
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Essai^Un", "T1", "DX"
    dataset.BodyPartExamined, dataset.SpecificCharacterSet = "CHEST", "ISO_IR 100"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
    bits = 8 if eight_bits else 12
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "MONOCHROME2"
    if eight_bits:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
        dataset.PixelData = pixels.tobytes()
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
