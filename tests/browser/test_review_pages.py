"""Blind reading in a real browser: twenty films by keyboard alone, nothing told before the lock, both languages.

Screenshots are kept in the folder that RADIA_SCREENSHOTS names, else in pytest's.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reading_room import question, settings, site_to_read, with_model

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
    pytest.mark.xdist_group("browser"),
]
OFFLINE = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PASSWORD = "une phrase bien longue"
FILMS = 20
SECRET = re.compile(rb"\b(S|P|I-S)\d\d\b|0\.73|0\.27|evaluation|cleaning|0\.4321|data-map|\.dcm|suspect")
PATIENCE = 120_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    from waitress.server import create_server

    from radia.web import create_app

    site = with_model(site_to_read(tmp_path_factory.mktemp("site"), studies=FILMS, repeats=1, side=128))
    app = create_app(site, settings=settings())
    accounts = app.extensions["radia"].accounts
    for name, roles in (("ann", ["reader"]), ("bob", ["reader"]), ("chief", ["lead"]), ("audrey", ["auditor"])):
        accounts.add(name, roles, PASSWORD)
    server = create_server(app, host="127.0.0.1", port=0, threads=8)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}", site
    server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("RADIA_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Person:
    """Somebody before the browser, with the keyboard alone."""

    def __init__(self, browser: Any, address: str, name: str, *, language: str = "fr-CA", **options: Any) -> None:
        self.name, self.address = name, address
        self.page = browser.new_page(locale=language, viewport={"width": 1440, "height": 900}, **options)
        self.page.set_default_timeout(PATIENCE)
        self.responses: list[Any] = []
        self.faults: list[str] = []
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)

    def sign_in(self, place: str = "/review") -> None:
        self.page.goto(self.address + place)
        self.page.wait_for_selector("[name=name]:focus")
        self.page.keyboard.type(self.name)
        self.page.keyboard.press("Tab")
        self.page.keyboard.type(PASSWORD)
        self.press("Enter", ".who .name")

    def press(self, key: str, then: str) -> None:
        """Presses a key that leads to another page, and waits for what is on that one alone."""
        self.page.keyboard.press(key)
        self.page.wait_for_selector(then, state="attached")
        self.page.wait_for_load_state()

    def begin(self) -> None:
        """From the start page to the film that waits."""
        self.page.wait_for_selector("button.main:focus")
        self.press("Enter", FILM)

    def answers(self) -> dict[str, str]:
        found: dict[str, str] = self.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('#read input:checked')].map((one) => "
            "[one.name.replace('answer ', ''), one.value]))"
        )
        return found

    def kept(self, answers: int) -> None:
        """Waits until the server holds so many answers."""
        self.page.wait_for_selector(f'#read[data-kept="{answers}"]')


FILM, READY = "#read", '#film[data-state="ready"]'


def accessible(page: Any) -> None:
    """axe-core finds nothing serious."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []


def test_twenty_films_are_read_by_keyboard_alone_and_nothing_is_told_before_the_lock(
    browser: Any, served: tuple[str, Any], pictures: Path
) -> None:
    from radia.steps.reads import read_log

    address, site = served
    ann = Person(browser, address, "ann")
    ann.sign_in()
    ann.page.screenshot(path=pictures / "review-start.png")
    accessible(ann.page)
    ann.responses.clear()
    ann.begin()
    told, revealed = 0, False
    for number in range(FILMS):
        if number == 0:
            ann.page.wait_for_selector(READY)
            accessible(ann.page)
            ann.page.screenshot(path=pictures / "review-film.png")
            ann.page.keyboard.press("Digit1")
            ann.page.keyboard.press("a")
            for key in ("Digit0", "u", "n"):
                ann.page.keyboard.press(key)
            ann.kept(4)
            accessible(ann.page)
            ann.page.screenshot(path=pictures / "review-film-all-14.png")
            assert sorted(ann.answers().values()) == ["0", "1", "N", "U"]
            ann.page.keyboard.press("Backspace")
            assert sorted(ann.answers().values()) == ["0", "1", "U"]
        else:
            ann.page.keyboard.press("Digit1" if number % 3 else "Numpad0")
        for response in list(ann.responses):
            # what is asked of the film before may still come in
            if response.url.startswith(ann.page.url) and response.status == 200:
                # the browser does not give back what a request with keepalive was answered: the unit tests look there
                plain = "/pixels/" not in response.url and "/prior/" not in response.url
                content = response.body() if plain and not response.url.endswith("/draft") else b""
                assert not SECRET.search(str(response.headers).encode() + content), response.url
                told += 1
        ann.press("Enter", "#next")
        if not revealed and ann.page.locator("#model").count():
            revealed = True
            ann.page.wait_for_selector('#model[data-state="ready"]')
            ann.page.keyboard.press("h")
            ann.page.wait_for_selector("#film [data-overlay]:not([hidden])")
            ann.page.wait_for_selector(READY)
            accessible(ann.page)
            ann.page.screenshot(path=pictures / "review-locked.png")
            assert ann.page.locator("#model tbody tr").count() == 14
        ann.responses.clear()
        ann.press("Enter", FILM)
    log = read_log(site)
    assert log is not None
    assert log[log["role"] == "reader"]["id"].nunique() == FILMS
    asked = log[[finding == question(study) for study, finding in zip(log["id"], log["finding"], strict=True)]]
    assert len(asked) == FILMS
    assert ann.page.locator("[data-asked]").count() > 0  # the film that is read again looks like any other
    assert revealed
    assert told >= 2 * FILMS  # each page and its film at least
    assert ann.faults == []
    ann.page.close()


def test_a_french_keyboard_answers_without_shift_and_the_film_has_its_own_keys(
    browser: Any, served: tuple[str, Any]
) -> None:
    bob = Person(browser, served[0], "bob")
    bob.sign_in()
    bob.begin()
    bob.page.wait_for_selector(READY)
    wire = bob.page.context.new_cdp_session(bob.page)
    wire.send("Input.dispatchKeyEvent", {"type": "keyDown", "code": "Digit1", "key": "&", "text": "&"})
    wire.send("Input.dispatchKeyEvent", {"type": "keyUp", "code": "Digit1", "key": "&"})
    assert list(bob.answers().values()) == ["1"]
    wire.send("Input.dispatchKeyEvent", {"type": "keyDown", "code": "Digit0", "key": "à", "text": "à"})
    bob.page.keyboard.press("i")
    bob.page.wait_for_selector('#film[data-inverted="true"]')
    bob.page.keyboard.press("+")
    bob.page.wait_for_selector('#film[data-zoom="1.25"]')
    bob.page.close()


def test_a_sign_out_in_the_middle_keeps_the_answer_and_the_reader_goes_on(
    browser: Any, served: tuple[str, Any], pictures: Path
) -> None:
    bob = Person(browser, served[0], "bob")
    bob.sign_in()
    bob.begin()
    bob.page.keyboard.press("a")
    bob.page.keyboard.press("ArrowDown")
    bob.page.keyboard.press("u")
    given = bob.answers()
    assert "U" in given.values()
    bob.kept(len(given))
    there = bob.page.url
    with bob.page.expect_navigation():
        bob.page.get_by_role("button", name="Se déconnecter").press("Enter")
    bob.sign_in()
    bob.begin()
    assert bob.page.url == there
    assert bob.answers() == given
    bob.page.close()


def test_time_stands_still_while_nobody_does_anything(browser: Any, served: tuple[str, Any]) -> None:
    bob = Person(browser, served[0], "bob")
    bob.page.clock.install()
    bob.sign_in()
    bob.begin()
    counted = "Number(document.getElementById('read').elements.seconds.value)"
    bob.page.keyboard.press("ArrowDown")
    start = bob.page.evaluate(counted)
    bob.page.clock.run_for(6000)
    assert 5 <= bob.page.evaluate(counted) - start <= 7
    bob.page.clock.run_for(120_000)
    assert 18 <= bob.page.evaluate(counted) - start <= 21
    bob.page.keyboard.press("ArrowUp")
    bob.page.clock.run_for(4000)
    assert 22 <= bob.page.evaluate(counted) - start <= 25
    bob.page.close()


@pytest.mark.parametrize(
    ("language", "said"), [("fr-CA", "Relecture en aveugle"), ("en-CA", "Blind reading")], ids=["french", "english"]
)
def test_the_pages_speak_the_browsers_language_and_another_where_it_is_chosen(
    browser: Any, served: tuple[str, Any], language: str, said: str
) -> None:
    bob = Person(browser, served[0], "bob", language=language)
    bob.sign_in()
    assert bob.page.locator("h1").inner_text() == said
    other = "EN" if language.startswith("fr") else "FR"
    with bob.page.expect_navigation():
        bob.page.locator(".languages a", has_text=other).press("Enter")
    assert bob.page.locator("html").get_attribute("lang") == other.lower()
    assert bob.page.locator("h1").inner_text() == ("Blind reading" if other == "EN" else "Relecture en aveugle")
    bob.page.close()


def test_the_lead_sees_how_far_readers_agree_and_an_auditor_reads_nothing(
    browser: Any, served: tuple[str, Any], pictures: Path
) -> None:
    chief = Person(browser, served[0], "chief")
    chief.sign_in("/review/agreement")
    assert chief.page.locator("h1").inner_text() == "Accord des lecteurs"
    accessible(chief.page)
    chief.page.screenshot(path=pictures / "agreement.png", full_page=True)
    chief.page.close()
    audrey = Person(browser, served[0], "audrey")
    audrey.sign_in("/review/agreement")
    assert audrey.page.locator("header nav a", has_text="Relecture").count() == 0
    assert audrey.page.goto(f"{served[0]}/review").status == 403
    audrey.page.close()
