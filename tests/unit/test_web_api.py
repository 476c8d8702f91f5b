"""The API: held to its own OpenAPI document, files in batches, figures for Prometheus, who may do what."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from openapi_spec_validator import validate
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from radia.findings import FINDINGS
from radia.model import ChestModel, Preprocessing, build, describe
from radia.settings import Settings
from radia.synthetic.phantom import examples
from radia.web import create_app, reading
from radia.web.accounts import ROLES
from radia.web.api import description
from radia.web.serving import Served
from radia.workspace import Workspace


def app_over(
    folder: Path, *, open_demo: bool = True, settings: Settings | None = None, model: ChestModel | None = None
) -> Flask:
    """The app with a small model in use, past the registry."""
    app = create_app(Workspace(folder), open_demo=open_demo, settings=settings or Settings())
    model = model or build("densenet-slim", preprocessing=Preprocessing(64), seed=1).eval()
    in_use = app.extensions["radia"].model
    in_use._served = Served("7", model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.4)))
    in_use._looked = math.inf
    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return app_over(tmp_path_factory.mktemp("site"))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())


ROOT = Path(__file__).resolve().parents[2]
FILMS = examples(2, seed=3, side=160)
NOISE = np.random.default_rng(2).integers(0, 255, (90, 90), dtype=np.uint8)


def files(*contents: io.BytesIO) -> dict[str, list[tuple[io.BytesIO, str]]]:
    return {"image": [(io.BytesIO(content.getvalue()), "x.png") for content in contents]}


class TestDescription:
    def test_is_openapi_as_its_specification_has_it(self) -> None:
        validate(description())

    def test_names_every_address_for_programs_and_no_other(self, app: Flask) -> None:
        programs = {
            re.sub(r"<(\w+)>", r"{\1}", rule.rule)
            for rule in app.url_map.iter_rules()
            if rule.endpoint.startswith("api.")
        }
        assert programs == set(description()["paths"])

    def test_is_served_as_json(self, client: FlaskClient) -> None:
        assert client.get("/api/openapi.json").get_json() == description()


OPERATIONS = [
    (path, method, mode)
    for path, methods in description()["paths"].items()
    for method in methods
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or method == "post"  # the others take nothing that could be wrong
]


@pytest.fixture(scope="module")
def asked_by_a_lead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Flask, dict[str, str]]:
    app = app_over(tmp_path_factory.mktemp("accounts"), open_demo=False)
    return app, bearer(app, "lead")


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_answers_are_as_described_whatever_is_asked(
    asked_by_a_lead: tuple[Flask, dict[str, str]], path: str, method: str, mode: GenerationMode
) -> None:
    app, token = asked_by_a_lead
    config = SchemathesisConfig.from_path(ROOT / "schemathesis.toml")
    described = schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=config, headers=token)
    unsupported = CHECKS.get_one("unsupported_method")  # never reaches a view: Flask's own answer

    @given(case=described[path][method.upper()].as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=token, excluded_checks=[unsupported])

    holds()


class TestBatches:
    def test_many_files_are_answered_in_their_order_and_one_refused_stops_no_other(self, client: FlaskClient) -> None:
        first, second, noise = png(FILMS[0]), png(FILMS[1]), png(NOISE)
        together = client.post("/api/predict", data=files(first, noise, io.BytesIO(b"no image"), second))
        assert together.status_code == 200
        results = together.get_json()["results"]
        assert [result.get("reason") for result in results] == [None, "NOT_CHEST", "NOT_DICOM", None]
        for content, result in ((first, results[0]), (second, results[3])):
            alone = client.post("/api/predict", data=files(content)).get_json()["results"][0]
            for finding in FINDINGS:
                assert result["findings"][finding]["probability"] == pytest.approx(
                    alone["findings"][finding]["probability"], abs=2e-6
                )

    def test_the_files_of_a_request_go_through_the_model_together(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []
        whole = reading.explained
        monkeypatch.setattr(
            reading, "explained", lambda model, pixels: sizes.append(len(pixels)) or whole(model, pixels)
        )
        client.post("/api/predict", data=files(*[png(FILMS[0])] * 4))
        assert sizes == [4]

    def test_too_many_files_are_turned_away(self, client: FlaskClient) -> None:
        assert client.post("/api/predict", data=files(*[io.BytesIO(b"x")] * 65)).status_code == 400

    def test_a_use_leaves_one_event_that_quotes_nothing(self, tmp_path: Path) -> None:
        app = app_over(tmp_path)
        answer = app.test_client().post("/api/predict", data=files(png(FILMS[0]), png(NOISE), png(FILMS[1])))
        assert answer.status_code == 200
        (event,) = app.extensions["radia.uploads"]._ledger.events()
        assert (event.action, event.actor) == ("predict", "open demo")
        assert event.parameters == {"model": "cxr version 7", "images": 2, "refused": 1}
        assert sorted(event.inputs) == ["pixels 1", "pixels 2"]


class TestFigures:
    def test_count_requests_images_refusals_and_name_the_model(self, tmp_path: Path) -> None:
        client = app_over(tmp_path).test_client()
        client.post("/api/predict", data=files(png(FILMS[0]), png(NOISE)))
        client.get("/<script>/Essai^Un")
        page = client.get("/metrics").get_data(as_text=True)
        for line in (
            'radia_requests_total{method="POST",status="200",view="api.predict"} 1.0',
            'radia_requests_total{method="none",status="404",view="none"} 1.0',
            'radia_request_seconds_count{view="api.predict"} 1.0',
            "radia_images_total 1.0",
            'radia_refusals_total{reason="NOT_CHEST"} 1.0',
            "radia_queue 0.0",
            "radia_model_version 7.0",
        ):
            assert line in page
        assert "Essai" not in page
        assert "script" not in page

    def test_are_for_this_machine_and_engineers(self, tmp_path: Path) -> None:
        app = app_over(tmp_path, open_demo=False)
        assert app.test_client().get("/metrics").status_code == 200
        elsewhere = {"REMOTE_ADDR": "203.0.113.9"}
        assert app.test_client().get("/metrics", environ_base=elsewhere).status_code in (302, 401)
        for role in ROLES:
            answer = app.test_client().get("/metrics", environ_base=elsewhere, headers=bearer(app, role))
            assert answer.status_code == (200 if role == "engineer" else 403)


def bearer(app: Flask, role: str) -> dict[str, str]:
    accounts = app.extensions["radia"].accounts
    accounts.add(f"a-{role}", roles=[role], password=None)
    return {"Authorization": f"Bearer {accounts.make_token(f'a-{role}')}"}


def test_only_a_lead_sends_to_the_pacs_and_only_where_there_is_one(tmp_path: Path) -> None:
    app = app_over(tmp_path, open_demo=False)
    for role in ROLES:
        answer = app.test_client().post("/api/send", data=files(png(FILMS[0])), headers=bearer(app, role))
        assert answer.status_code == (409 if role == "lead" else 403)
        assert "error" in answer.get_json()


@pytest.mark.parametrize("role", ROLES)
def test_the_model_is_asked_by_those_whose_work_it_is(tmp_path: Path, role: str) -> None:
    app = app_over(tmp_path, open_demo=False)
    asked = app.test_client().post("/api/predict", data=files(png(FILMS[0])), headers=bearer(app, role))
    assert asked.status_code == (403 if role == "auditor" else 200)
