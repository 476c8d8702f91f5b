"""The demo in a real browser: films go in; probabilities, films at full depth, heat maps and reports come out."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from radia.findings import FINDINGS
from radia.web.examples import example

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
PATIENCE = 120_000
PICTURES = Path(__file__).resolve().parents[2] / "test-artifacts"
SIDE = 128


def taught_model() -> Any:
    """A small model whose Cardiomegaly looks at hearts: its head is fitted to the boxes of some drawn ones."""
    import torch

    from radia.model import Preprocessing, build, to_input
    from radia.synthetic.hospital import plan_hospital
    from radia.synthetic.phantom import radiograph, to_uint8
    from radia.synthetic.population import populations

    model = build("densenet-slim", preprocessing=Preprocessing(SIDE), seed=1).eval()
    large = [study for study in plan_hospital(200, 1) if any(sign.finding == "Cardiomegaly" for sign in study.signs)]
    drawn = [
        radiograph(study.body, study.pose, study.signs, populations()[study.exam.site].look, side=SIDE, seed=study.seed)
        for study in large[:25]
    ]
    with torch.no_grad():
        maps = model.features(
            to_input(torch.from_numpy(np.stack([to_uint8(one.pixels) for one in drawn])), model.preprocessing)
        )
    n, channels, rows, columns = maps.shape
    down, across = (np.mgrid[:rows, :columns] + 0.5) / rows
    inside = np.zeros((n, rows, columns))
    for number, one in enumerate(drawn):
        for finding, (x0, y0, x1, y1) in one.boxes:
            if finding == "Cardiomegaly":
                inside[number][(across >= x0) & (across <= x1) & (down >= y0) & (down <= y1)] = 1
    cells = maps.numpy().transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    mean, spread = cells.mean(0), cells.std(0) + 1e-6
    scaled = (cells - mean) / spread
    weights = np.linalg.solve(scaled.T @ scaled + 50 * np.eye(channels), scaled.T @ (inside.ravel() - inside.mean()))
    row = FINDINGS.index("Cardiomegaly")
    with torch.no_grad():
        model.head.weight[row] = torch.from_numpy(weights / spread).float()
        model.head.bias[row] = 3.0 - float(weights @ (mean / spread))
    return model


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from waitress.server import create_server

    from tests.unit.test_web_api import app_over

    server = create_server(
        app_over(tmp_path_factory.mktemp("site"), model=taught_model()), host="127.0.0.1", port=0, threads=8
    )
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The demo page; whatever it asks of another host fails the test, and so does an error of its scripts."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="en-GB", accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    requested: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: requested.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(f"{address}/demo")
    yield opened
    context.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in requested)
    assert wrong == []


def chosen(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "", "buffer": content}


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


NOISE = png(np.random.default_rng(2).integers(0, 255, (90, 90), dtype=np.uint8))


def read_all(page: Page, *files: dict[str, Any]) -> None:
    page.set_input_files("#image", list(files))
    expect(page.locator("#films")).to_have_attribute("data-state", "done")


def film_shown(page: Page) -> None:
    expect(page.locator("#film")).to_have_attribute("data-state", "ready")


def shot(page: Page, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"demo-{name}.png", full_page=True)


WHERE_IT_GLOWS = """() => {
  const heat = document.querySelector('[data-overlay]'), film = document.querySelector('#film canvas');
  const canvas = document.createElement('canvas');
  canvas.width = heat.naturalWidth;
  canvas.height = heat.naturalHeight;
  const drawing = canvas.getContext('2d');
  drawing.drawImage(heat, 0, 0);
  const {data} = drawing.getImageData(0, 0, canvas.width, canvas.height);
  let best = -1, at = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > best) { best = data[i + 3]; at = i / 4; }
  const over = heat.getBoundingClientRect(), under = film.getBoundingClientRect();
  const x = over.left + (at % canvas.width + 0.5) / canvas.width * over.width;
  const y = over.top + (Math.floor(at / canvas.width) + 0.5) / canvas.height * over.height;
  return [(x - under.left) / under.width, (y - under.top) / under.height];
}"""


def shades(page: Page, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    """What the canvas shows of a part of the film, [rows, columns]."""
    values = page.evaluate(
        """(place) => {
          const drawing = document.querySelector('#film canvas').getContext('2d');
          return Array.from(drawing.getImageData(...place).data);
        }""",
        [x0, y0, x1 - x0, y1 - y0],
    )
    return np.array(values, np.uint8).reshape(y1 - y0, x1 - x0, 4)[..., 0]


def test_an_upload_becomes_probabilities_and_a_heat_map_over_the_right_place(page: Page) -> None:
    film = example(1)
    assert film.findings == ("Cardiomegaly",)
    read_all(page, chosen("IM1.dcm", film.content))
    expect(page.locator(".findings tbody tr")).to_have_count(14)
    film_shown(page)
    heat = page.locator("[data-overlay]")
    expect(heat).to_be_hidden()
    page.get_by_role("button", name="Cardiomegaly", exact=True).click()
    expect(heat).to_be_visible()
    (box,) = (box for finding, box in film.boxes if finding == "Cardiomegaly")
    for zoom in (1, 3):
        for _ in range(zoom):
            page.get_by_role("button", name="Zoom in").click()
        x, y = page.evaluate(WHERE_IT_GLOWS)
        assert box[0] <= x <= box[2]
        assert box[1] <= y <= box[3]
    page.get_by_role("button", name="Reset").click()
    page.locator("#opacity").fill("40")
    assert page.evaluate("getComputedStyle(document.querySelector('[data-overlay]')).opacity") == "0.4"
    shot(page, "heat-map")
    page.get_by_role("button", name="Cardiomegaly", exact=True).click()
    expect(heat).to_be_hidden()


def test_the_film_is_shown_at_twelve_bits_and_without_the_name_burned_into_it(page: Page) -> None:
    film = example(1)
    read_all(page, chosen("IM1.dcm", film.content))
    film_shown(page)
    stored = pydicom.dcmread(io.BytesIO(film.content)).pixel_array
    assert film.text is not None
    assert np.ptp(stored[film.text[1] : film.text[3], film.text[0] : film.text[2]]) > 2000
    assert shades(page, *film.text).max() == 0

    part = (300, 300, 420, 420)
    wide = len(np.unique(shades(page, *part)))
    for _ in range(18):
        page.keyboard.press("c")
    assert float(page.locator("#film").get_attribute("data-width") or 0) < 300
    rows = stored[part[1] : part[3], part[0] : part[2]]
    low = (
        float(page.locator("#film").get_attribute("data-level") or 0)
        - float(page.locator("#film").get_attribute("data-width") or 0) / 2
    )
    within = np.unique(rows[(rows > low + 2) & (rows < low + 253)])
    page.wait_for_function("true")
    narrow = shades(page, *part)
    assert len(within) > wide / 4
    assert len(np.unique(narrow)) >= 0.7 * min(len(within), 255)  # neighbours among 4,096 are told apart

    page.keyboard.press("f")
    before = shades(page, *part)
    page.keyboard.press("i")
    expect(page.locator("#film")).to_have_attribute("data-inverted", "true")
    assert np.abs(shades(page, *part).astype(int) + before - 255).max() <= 1


def test_many_files_are_answered_each_for_itself_and_exported(page: Page, tmp_path: Path) -> None:
    film, name = example(2), "<img src=x onerror=alert(1)>.dcm"
    read_all(page, chosen(name, film.content), chosen("knee.png", NOISE), chosen("empty.dcm", b""))
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(3)
    expect(page.locator("#progress")).to_have_text("3 of 3")
    assert name in rows.nth(0).inner_text()
    expect(rows.nth(1)).to_contain_text("This is no frontal chest X-ray.")
    expect(rows.nth(2)).to_contain_text("The file is empty.")
    shot(page, "many-files")
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind.upper()).click()
        download.value.save_as(tmp_path / kind)
    with (tmp_path / "csv").open(newline="") as table:
        lines = list(csv.DictReader(table))
    assert [line["file"] for line in lines] == [name, "knee.png", "empty.dcm"]
    assert [line["refused"] for line in lines] == ["", "NOT_CHEST", "EMPTY_FILE"]
    first, knee, _ = json.loads((tmp_path / "json").read_text())["films"]
    assert {finding: float(lines[0][finding]) for finding in FINDINGS} == {
        finding: said["probability"] for finding, said in first["findings"].items()
    }
    assert knee == {"file": "knee.png", "refused": "NOT_CHEST"}


def test_films_can_be_dropped_onto_the_page(page: Page) -> None:
    page.evaluate(
        """(content) => {
          const files = new DataTransfer();
          for (const name of ['a.png', 'b.png']) files.items.add(new File([Uint8Array.from(content)], name));
          document.body.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: files}));
        }""",
        list(NOISE),
    )
    expect(page.locator("#list tbody tr.refused")).to_have_count(2)


def test_everything_can_be_done_without_a_mouse(page: Page) -> None:
    page.get_by_role("button", name="Example 2").focus()
    page.keyboard.press("Enter")
    film_shown(page)
    page.locator("button.finding").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    heat = page.locator("[data-overlay]")
    expect(page.locator("button.finding").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(heat).to_be_visible()
    page.keyboard.press("h")
    expect(heat).to_be_hidden()
    viewer = page.locator("#film")
    viewer.focus()
    page.keyboard.press("+")
    expect(viewer).to_have_attribute("data-zoom", "1.25")
    page.keyboard.press("f")
    expect(viewer).to_have_attribute("data-zoom", "1.00")


def test_a_report_and_an_image_with_the_chosen_heat_map_can_be_downloaded(page: Page, tmp_path: Path) -> None:
    film = example(2)
    read_all(page, chosen("IM2.dcm", film.content))
    page.get_by_role("button", name="Cardiomegaly", exact=True).click()
    for button, modality in (("Structured report", "SR"), ("Image with heat map", "OT")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / modality)
        made = pydicom.dcmread(tmp_path / modality)
        assert made.Modality == modality
        assert made.PatientIdentityRemoved == "YES"
    assert "Cardiomegaly" in made.DerivationDescription


def test_a_picture_offers_no_report(page: Page) -> None:
    read_all(
        page, chosen("a.png", png((pydicom.dcmread(io.BytesIO(example(2).content)).pixel_array >> 4).astype(np.uint8)))
    )
    expect(page.get_by_text("Reports for a PACS need a DICOM file")).to_be_visible()
    expect(page.get_by_role("button", name="Structured report")).to_have_count(0)


def test_a_lead_signs_in_reads_and_sends_to_the_pacs(browser: Browser, tmp_path: Path) -> None:
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import ComprehensiveSRStorage, SecondaryCaptureImageStorage
    from waitress.server import create_server

    from radia.settings import Settings, StoreSettings, WebSettings
    from tests.unit.test_web_api import app_over

    taken: list[pydicom.Dataset] = []

    def take(event: evt.Event) -> int:
        taken.append(event.dataset)
        return 0

    pacs = AE(ae_title="PACS")
    for kind in (ComprehensiveSRStorage, SecondaryCaptureImageStorage):
        pacs.add_supported_context(kind)
    listening = pacs.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    where = StoreSettings(host="127.0.0.1", port=listening.server_address[1], ae_title="PACS")
    app = app_over(tmp_path, open_demo=False, settings=Settings(web=WebSettings(pacs=where)))
    app.extensions["radia"].accounts.add("dre.roy", roles=["lead"], password="trois mots à elle")
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    threading.Thread(target=server.run, daemon=True).start()
    page = browser.new_page(locale="fr-FR")
    page.set_default_timeout(PATIENCE)
    try:
        page.goto(f"http://127.0.0.1:{server.effective_port}/demo")
        page.get_by_label("Nom").fill("dre.roy")
        page.get_by_label("Mot de passe").fill("trois mots à elle")
        page.get_by_role("button", name="Se connecter").click()
        film = example(2).content
        read_all(page, chosen("IM2.dcm", film))
        for original in (False, True):
            page.get_by_label("avec les identifiants du patient").set_checked(original)
            page.get_by_role("button", name="Envoyer les deux au PACS").click()
            expect(page.locator("#handed")).to_have_text("Envoyé au PACS.")
            page.locator("#handed").evaluate("told => told.textContent = ''")
        serious(page)
        shot(page, "signed-in")
    finally:
        page.close()
        server.close()
        listening.shutdown()
    own = pydicom.dcmread(io.BytesIO(film)).PatientID
    assert [made.PatientID == own for made in taken] == [False, False, True, True]


def test_the_page_speaks_french_and_axe_finds_nothing_serious(page: Page) -> None:
    for language, said in (("EN", "Assistance, not diagnosis."), ("FR", "Aide à la lecture, pas un diagnostic.")):
        page.locator(".languages a", has_text=language).click()
        expect(page.get_by_text(said)).to_be_visible()
        serious(page)
    shot(page, "start")
    read_all(page, chosen("IM1.dcm", example(1).content), chosen("genou.png", NOISE))
    film_shown(page)
    page.get_by_role("button", name="Cardiomégalie", exact=True).click()
    expect(page.get_by_text("Où le modèle regarde pour : Cardiomégalie")).to_be_visible()
    expect(page.locator("#list")).to_contain_text("Ce n'est pas une radiographie thoracique de face.")
    serious(page)
    shot(page, "french")


def serious(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in grave] == []
