"""Trace pages: who may see them, where their nodes lead, what is downloaded, what an unknown id is answered with."""

from __future__ import annotations

import json
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from radia import registry
from radia.ledger import Ledger
from radia.web import create_app
from radia.web.trace import KINDS
from radia.workspace import Workspace
from tests.unit import test_trace as lineage

site, ledger = lineage.site, lineage.ledger


@pytest.fixture
def app(site: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(registry, "find", lambda *_asked: None)  # MLflow takes seconds to make its database
    made = create_app(site)
    for role in ("auditor", "lead", "reader", "engineer"):
        made.extensions["radia"].accounts.add(role, [role], None)
    return made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def asked(client: FlaskClient, path: str, role: str = "auditor") -> TestResponse:
    accounts = client.application.extensions["radia"].accounts
    return client.get(path, headers={"Authorization": f"Bearer {accounts.make_token(role)}"})


def text(answer: TestResponse) -> str:
    return answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/trace/model/3", "model cxr-candidate/3"),
        ("/trace/model/cxr-candidate/3", "model cxr-candidate/3"),
        ("/trace/image/I1", "image I1"),
        ("/trace/patient/P1", "patient P1"),
        ("/trace/batch/HND-20261123-1", "batch HND-20261123-1"),
        ("/trace/person/Dr%20C%C3%B4t%C3%A9", "person Dr Côté"),
        ("/trace/check/6", "check (event 6)"),
        ("/trace/event/9", "finetune (event 9)"),
    ],
)
def test_each_kind_has_its_page(client: FlaskClient, path: str, title: str) -> None:
    answer = asked(client, path)
    assert answer.status_code == 200
    assert f"<h1>{title}</h1>" in text(answer)


def test_every_link_of_a_page_leads_to_a_page(client: FlaskClient) -> None:
    seen, waiting = set(), ["/trace/model/3"]
    while waiting:
        path = waiting.pop()
        answer = asked(client, path)
        assert answer.status_code == 200, path
        seen.add(path)
        found = set(re.findall(r'href="(/trace/[^"?]+)"', text(answer)))
        waiting += sorted(found - seen - set(waiting))
    kinds = {path.split("/")[2] for path in seen}
    assert kinds == {"model", "image", "patient", "batch", "person", "event"}
    assert {"/trace/image/I3", "/trace/patient/P2", "/trace/person/radia", "/trace/model/cxr/2"} <= seen


def test_the_drawing_leads_on_and_a_page_that_stands_alone_does_not(client: FlaskClient, ledger: Ledger) -> None:
    from radia.trace import trace_model
    from radia.trace_page import to_html

    drawing = re.search(r"<svg.*?</svg>", text(asked(client, "/trace/model/3")), re.DOTALL)
    assert drawing is not None
    assert 'href="/trace/batch/HND-20261123-1"' in drawing[0]
    assert 'href="/trace/person/Dr%20C%C3%B4t%C3%A9"' in drawing[0]
    alone = to_html(trace_model(client.application.extensions["radia"].site, ledger, "3"))
    assert "/trace/" not in alone


def test_what_is_asked_in_the_form_is_answered_under_its_own_address(client: FlaskClient) -> None:
    answer = asked(client, "/trace?kind=batch&id=+HND-20261123-1+")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/trace/batch/HND-20261123-1")


def test_an_unknown_id_is_answered_with_the_nearest_and_not_repeated_in_the_reason(client: FlaskClient) -> None:
    answer = asked(client, "/trace/patient/P9")
    assert answer.status_code == 404
    assert re.findall(r'href="(/trace/patient/[^"]+)"', text(answer)) == ["/trace/patient/P1", "/trace/patient/P2"]
    reason = re.search(r'<p class="error"[^>]*>(.*?)</p>', text(answer))
    assert reason is not None
    assert "P9" not in reason[1]
    wrong = asked(client, "/trace/batch/HND-20261123-7")
    assert 'href="/trace/batch/HND-20261123-1"' in text(wrong)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/trace/nothing/1", 404),
        ("/trace/check/notanumber", 404),
        ("/trace/check/999", 404),
        ("/trace/image/%3Cscript%3Ealert(1)%3C/script%3E", 404),
        ("/trace/batch/../../etc/passwd", 404),
        (f"/trace/person/{'x' * 3000}", 404),
        ("/trace?kind=nothing&id=1", 200),
    ],
)
def test_what_cannot_be_traced_is_refused(client: FlaskClient, path: str, status: int) -> None:
    answer = asked(client, path)
    assert answer.status_code == status
    assert "<script>alert" not in text(answer)


def test_the_latest_reads_and_checks_are_listed(client: FlaskClient, ledger: Ledger) -> None:
    ledger.append("read", actor="ann", parameters={"reader": "ann", "role": "reader"}, subjects=["S1"])
    assert 'href="/trace/check/6"' in text(asked(client, "/trace?kind=check"))
    page = text(asked(client, "/trace?kind=read"))
    assert 'href="/trace/read/16"' in page
    assert "ann" in page


def test_json_and_prov_are_downloads_of_the_same_trace(client: FlaskClient) -> None:
    for kind in ("json", "prov"):
        answer = asked(client, f"/trace/model/3?as={kind}")
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.mimetype == "application/json"
    tree = json.loads(asked(client, "/trace/model/3?as=json").data)
    assert tree["label"] == "model cxr-candidate/3"
    prov = json.loads(asked(client, "/trace/model/3?as=prov").data)
    assert {f"radia:event-{number}" for number in (1, 3, 4, 5, 6, 7, 9, 12, 14)} <= set(prov["activity"])


@pytest.mark.parametrize(("role", "status"), [("auditor", 200), ("lead", 200), ("reader", 403), ("engineer", 403)])
@pytest.mark.parametrize("path", ["/trace", "/trace/model/3", "/trace/model/3?as=json"])
def test_lineage_is_the_auditors_and_the_leads(client: FlaskClient, role: str, status: int, path: str) -> None:
    assert asked(client, path, role).status_code == status


def test_nothing_is_changed_by_looking(client: FlaskClient, site: Workspace, ledger: Ledger) -> None:
    before = len(ledger.events())
    for kind, name in zip(KINDS, ("3", "I1", "P1", "HND-20261123-1", "6", "radia", "6"), strict=True):
        asked(client, f"/trace/{kind}/{name}")
    assert len(ledger.events()) == before
    rules = [rule for rule in client.application.url_map.iter_rules() if rule.endpoint.startswith("trace.")]
    assert {method for rule in rules for method in rule.methods or ()} == {"GET", "HEAD", "OPTIONS"}
