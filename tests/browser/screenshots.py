"""The pictures of docs/: pages of a running `radia up`, taken in headless Chromium. `make screenshots`.

Everything in them is the embedded hospital's: phantoms, not patients.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from radia.settings import workspace
from radia.workspace import Workspace

SIZE = {"width": 1280, "height": 800}


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    asked.add_argument("target", type=Path)
    asked.add_argument("names", nargs="*", help="which of them; all where none is named")
    chosen = asked.parse_args()
    site = Workspace(workspace().root.resolve())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in chosen.names or PICTURES:
            page = browser.new_page(viewport=SIZE, locale="fr-CA" if name in FRENCH else "en-CA")
            page.set_default_timeout(60_000)
            PICTURES[name](page, site)
            _kept(page, chosen.target / f"{name}.png")
            page.close()
        browser.close()


def _kept(page: Page, path: Path) -> None:
    """256 colours are enough for a page, and a third of the bytes."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def quality(page: Page, site: Workspace) -> None:
    page.goto((site.root / "quality" / "site" / "index.html").as_uri())


def up(page: Page, _: Workspace) -> None:
    page.set_viewport_size({"width": 1280, "height": 640})
    page.goto("http://127.0.0.1:8080")


def dagster(page: Page, _: Workspace) -> None:
    page.set_viewport_size({"width": 2000, "height": 640})  # the whole way of the data, legible
    page.goto("http://127.0.0.1:3000/asset-groups")
    page.wait_for_timeout(8000)


def mlflow(page: Page, _: Workspace) -> None:
    page.goto("http://127.0.0.1:5000/#/models/cxr-candidate/versions/1")
    page.wait_for_timeout(6000)


def evaluation(page: Page, site: Workspace) -> None:
    page.goto((site.evaluation / "report.html").as_uri())


def trace(page: Page, site: Workspace) -> None:
    written = site.root / "trace-of-model-1.html"
    subprocess.run([sys.executable, "-m", "radia", "trace", "model", "1", "--html", str(written)], check=True)
    page.goto(written.as_uri())


def demo(page: Page, _: Workspace) -> None:
    page.goto("http://127.0.0.1:8000/")
    page.get_by_role("button", name="Exemple 2").click()
    page.wait_for_selector('#film[data-state="ready"]')
    page.get_by_role("button", name="Cardiomégalie", exact=True).click()
    page.locator("#film").scroll_into_view_if_needed()
    page.wait_for_timeout(1500)


def review(page: Page, site: Workspace) -> None:
    """Signs in as a reader who is made for this picture."""
    password = "une phrase bien longue"
    written = site.root / "password-of-the-pictures"
    written.write_text(password + "\n")
    add = [sys.executable, "-m", "radia", "people", "add", "lectrice", "--role", "reader"]
    subprocess.run([*add, "--password-file", str(written)], check=False)
    page.goto("http://127.0.0.1:8000/review")
    page.keyboard.type("lectrice")
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.wait_for_selector("h1")
    page.keyboard.press("Enter")
    page.wait_for_selector('#film[data-state="ready"]')
    page.keyboard.press("Digit1")
    page.wait_for_selector('#read[data-kept="1"]')


PICTURES: dict[str, Callable[[Page, Workspace], None]] = {
    "up": up,
    "quality": quality,
    "dagster": dagster,
    "mlflow": mlflow,
    "evaluation": evaluation,
    "trace": trace,
    "demo": demo,
    "review": review,
}
"""In this order: the demo is open to this machine until there is an account."""
FRENCH = {"demo", "review"}

if __name__ == "__main__":
    os.environ.setdefault("RADIA_DATA", "data/demo")
    main()
