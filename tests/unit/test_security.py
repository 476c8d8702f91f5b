"""What docs/threat-model.md says is refused, where no other test holds it."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from radia.dicom.deidentify import Engine
from radia.errors import IntakeError, SettingsError
from radia.intake import pacs
from radia.intake.pacs import take_pacs
from radia.settings import PacsSettings, database_url, load_settings
from tests.audit.check import LIST, Weakness, answered, listed, pinned
from tests.fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).resolve().parents[2]


class Redirecting(BaseHTTPRequestHandler):
    """A PACS that sends whoever asks to `/secret`, and notes what was asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path.partition("?")[0])
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/secret")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def redirecting() -> Iterator[str]:
    Redirecting.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def ask(url: str, landing: Path) -> None:
    settings = PacsSettings(site="HND", url=url, attempts=2, backoff_seconds=0)
    take_pacs(settings, landing, since=date(2026, 1, 1), until=date(2026, 1, 2), today=date(2026, 1, 3))


def test_a_pacs_that_sends_us_elsewhere_is_not_followed(redirecting: str, tmp_path: Path) -> None:
    with pytest.raises(IntakeError, match="answered 302"):
        ask(f"{redirecting}/dicom-web", tmp_path)
    assert Redirecting.asked == ["/dicom-web/series"]


ELSEWHERE = ["169.254.169.254", "[fe80::1]", "0.0.0.0", "224.0.0.1"]
DISGUISED = ["[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "2852039166", "[fd00:ec2::254]"]


@pytest.mark.parametrize("host", [*ELSEWHERE, *DISGUISED])
def test_a_pacs_at_an_address_that_no_pacs_has_is_not_asked(host: str, tmp_path: Path) -> None:
    with pytest.raises(IntakeError, match="no PACS can have"):
        ask(f"http://{host}/dicom-web", tmp_path)


def test_a_name_that_means_another_address_when_it_is_asked_gets_nothing(
    redirecting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the look at the settings sees nothing wrong, and the connection goes elsewhere."""
    known = pacs._address
    monkeypatch.setattr(pacs, "_address", lambda text: known("169.254.169.254" if text == "127.0.0.1" else text))
    monkeypatch.setattr(pacs, "_addresses", lambda host: [known("10.1.2.3")])
    with pytest.raises(IntakeError, match="no PACS can have"):
        ask(f"{redirecting}/dicom-web", tmp_path)
    assert Redirecting.asked == []


BYTES = b"\0DICM\r\n\r\n--not an edge\r\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom", BYTES),
        ('multipart/related; type="application/dicom"; boundary=e', b"--e\r\nA: b\r\n\r\n" + BYTES + b"\r\n--e--\r\n"),
        ('multipart/related; boundary="e"', b"first\r\n--e\r\n\r\n" + BYTES + b"\r\n--e--"),
    ],
)
def test_a_file_of_a_pacs_is_taken_as_it_is(kind: str, body: bytes) -> None:
    assert pacs._only_part(kind, body) == BYTES


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", BYTES),
        ("", BYTES),
        ("multipart/related", BYTES),
        ("multipart/related; boundary=e", BYTES),
        ("multipart/related; boundary=e", b"--e\r\n\r\nhalf"),
        ("multipart/related; boundary=e", b"--e\r\n\r\none\r\n--e\r\n\r\ntwo\r\n--e--"),
    ],
)
def test_an_answer_that_is_not_one_file_is_an_error(kind: str, body: bytes) -> None:
    with pytest.raises(ValueError, match="part"):
        pacs._only_part(kind, body)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://pacs/1", "http://me:word@pacs/dicom-web", "pacs:8042"])
def test_a_pacs_is_named_by_a_plain_web_address(url: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"intake: {{pacs: [{{site: HND, url: '{url}'}}]}}")
    with pytest.raises(SettingsError, match=r"intake\.pacs"):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize("secret", ["radia:S3cret@db", "db:5432?password=S3cret", "db?sslpassword=S3cret&user=me"])
def test_a_password_in_the_address_of_a_database_is_refused_and_not_repeated(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand among the arguments of MLflow's server and of pg_dump, for everybody on the machine to read."""
    monkeypatch.setenv("RADIA_DATABASE", f"postgresql://{secret}")
    with pytest.raises(SettingsError, match="PGPASSFILE") as told:
        database_url("mlflow")
    assert "S3cret" not in str(told.value)


def test_nothing_that_the_lock_pins_has_a_listed_weakness() -> None:
    assert listed(ROOT / "requirements.lock") == []


def test_a_pinned_version_with_a_listed_weakness_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("Pillow==10.2.0\npydicom==3.0.1\nwerkzeug==3.0.6 # the one that mended it\n")
    found = {(weakness.package, weakness.version, weakness.advisory) for weakness in listed(tmp_path / "lock")}
    assert found == {("pillow", "10.2.0", "CVE-2024-28219"), ("pillow", "10.2.0", "CVE-2025-48379")}


def test_every_listed_weakness_is_of_a_package_that_is_pinned() -> None:
    with LIST.open() as file:
        assert {row["package"] for row in csv.DictReader(file)} <= pinned(ROOT / "requirements.lock").keys()


def test_packages_that_the_database_skipped_do_not_count_as_audited() -> None:
    skipped: dict[str, list[dict[str, object]]] = {"dependencies": [{"name": "pillow", "skip_reason": "not found"}]}
    known = {"name": "pillow", "version": "10.2.0", "vulns": [{"id": "X-1", "description": "a\nb"}]}
    assert answered(skipped) is None
    assert answered({"dependencies": [known]}) == [Weakness("pillow", "10.2.0", "X-1", "a b")]


def test_the_fuzzer_finds_an_identifier_that_an_engine_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = seeds("deidentification")[0]
    TARGETS["deidentification"](plain)
    monkeypatch.setattr(Engine, "deidentify_file", lambda _, raw, digest: SimpleNamespace(pieces=[raw]))
    with pytest.raises(AssertionError, match="an identifier"):
        TARGETS["deidentification"](plain)


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_of_the_fuzzer_pass_and_noise_is_no_crash(target: str) -> None:
    for seed in seeds(target)[::9]:
        for raw in (seed, seed[: len(seed) // 2], bytes(reversed(seed)), seed[:200] + bytes(40) + seed[240:]):
            TARGETS[target](raw)
