"""The demo in a real browser: an X-ray goes in, probabilities and a visible heat map come out."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
    pytest.mark.xdist_group("browser"),
]
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from waitress.server import create_server

    from radia import registry
    from radia.findings import FINDINGS
    from radia.model import Preprocessing, build, describe, save_checkpoint
    from radia.web import create_app
    from radia.workspace import Workspace

    site = Workspace(tmp_path_factory.mktemp("site"))
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=1)
    save_checkpoint(site.root / "model", model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.5)))
    registry.register_champion(site, site.root / "model", description="for tests")
    server = create_server(create_app(site, open_demo=True), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


def test_upload_then_probabilities_then_heat_map(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    from radia.synthetic.phantom import examples

    expect.set_options(timeout=120_000)
    film = tmp_path / "film.png"
    _save(examples(1, seed=3)[0], film)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(address)
        page.set_input_files("#image", film)
        page.get_by_role("button", name="Read").click()
        expect(page.locator("tbody tr")).to_have_count(14)
        heat = page.locator("#heat")
        expect(heat).to_be_hidden()
        page.get_by_role("button", name="Cardiomegaly", exact=True).click()
        expect(heat).to_be_visible()
        film_box, heat_box = page.locator(".film").bounding_box(), heat.bounding_box()
        assert film_box is not None
        assert heat_box is not None
        assert abs(film_box["width"] - heat_box["width"]) < 3
        assert abs(film_box["height"] - heat_box["height"]) < 3
        page.get_by_role("button", name="Cardiomegaly", exact=True).click()
        expect(heat).to_be_hidden()
        browser.close()
    assert all(url.startswith((address, "data:")) for url in requested)


def _save(pixels: object, path: Path) -> None:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
