"""Lineage in a real browser: a question, the drawing, and on from node to node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from radia import registry
from radia.ledger import Ledger
from radia.workspace import Workspace
from tests.browser import test_review_pages as reading
from tests.unit import test_trace as lineage

pytestmark = reading.pytestmark
site, ledger = lineage.site, lineage.ledger
browser, pictures = reading.browser, reading.pictures


@pytest.fixture
def address(site: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from waitress.server import create_server

    from radia.web import create_app

    monkeypatch.setattr(registry, "find", lambda *_asked: None)
    app = create_app(site)
    app.extensions["radia"].accounts.add("audrey", ["auditor"], reading.PASSWORD)
    server = create_server(app, host="127.0.0.1", port=0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


def test_an_auditor_walks_from_a_model_to_a_batch_and_to_a_person(browser: Any, address: str, pictures: Path) -> None:
    audrey = reading.Person(browser, address, "audrey")
    audrey.sign_in("/trace")
    page = audrey.page
    assert page.locator("h1").inner_text() == "Traçabilité"
    reading.accessible(page)
    page.screenshot(path=pictures / "trace-search.png")
    page.locator("[name=id]").fill("3")
    audrey.press("Enter", ".trace svg")
    assert page.locator("h1").inner_text() == "model cxr-candidate/3"
    reading.accessible(page)
    page.screenshot(path=pictures / "trace-model.png", full_page=True)
    page.locator('.trace svg a[href="/trace/batch/HND-20261123-1"]').focus()
    audrey.press("Enter", "h1:has-text('batch HND-20261123-1')")
    page.goto(f"{address}/trace/patient/P9")
    reading.accessible(page)
    page.get_by_role("link", name="P1").focus()
    audrey.press("Enter", "h1:has-text('patient P1')")
    with page.expect_download() as download:
        page.get_by_role("link", name="PROV").press("Enter")
    assert download.value.suggested_filename == "trace-patient.prov.json"
    page.close()
