"""The doctor finds what is planted, says what to do, and changes nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from radia.cli import main
from radia.ledger import open_ledger
from radia.operations import doctor
from radia.operations.doctor import Finding, examine, worst
from radia.operations.secret_files import write_secrets
from radia.settings import quiet_dependencies
from radia.web.accounts import secret_key
from radia.workspace import Workspace


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in ("RADIA_DATABASE", "RADIA_LEDGER_KEY", "RADIA_LEDGER_KEY_FILE", "RADIA_KEY", "RADIA_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    quiet_dependencies()
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(doctor, "LEAST_FREE", 0)
    site = Workspace(tmp_path / "data")
    open_ledger(site).append("read", actor="a")
    settings(site)
    return site


def settings(site: Workspace, **sections: object) -> None:
    receiver = {"intake": {"receiver": {"min_free_bytes": 0}}}
    (site.root / "params.yaml").write_text(yaml.safe_dump(receiver | sections))


def of(findings: list[Finding], subject: str) -> list[Finding]:
    return [one for one in findings if one.subject == subject]


def states(site: Workspace, subject: str) -> set[str]:
    return {one.state for one in of(examine(site, reach_out=False), subject)}


def test_a_sound_site_has_nothing_that_fails(site: Workspace) -> None:
    assert [one for one in examine(site, reach_out=False) if one.state == "fail"] == []


def test_everything_that_is_not_well_says_what_to_do(site: Workspace) -> None:
    site.ledger_key_file.chmod(0o644)
    settings(site, intake={"receiver": {"min_free_bytes": 10**18}})
    bad = [one for one in examine(site, reach_out=False) if one.state != "ok"]
    assert len(bad) >= 2
    assert [one for one in bad if not one.advice] == []


def test_a_key_that_others_can_read_fails(site: Workspace) -> None:
    assert states(site, "key") == {"ok"}
    site.ledger_key_file.chmod(0o640)
    (found,) = [one for one in of(examine(site, reach_out=False), "key") if one.state == "fail"]
    assert "ledger.key" in found.found
    assert found.advice.startswith("chmod 600 ")


def test_a_landing_zone_that_others_can_enter_fails(site: Workspace) -> None:
    site.landing.mkdir(mode=0o700)
    assert states(site, "folder") == {"ok"}
    site.landing.chmod(0o755)
    assert "fail" in states(site, "folder")


def test_a_secret_that_is_not_there_or_open_to_others_fails(
    site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(tmp_path / "secrets")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD_FILE", str(tmp_path / "secrets" / "mlflow_admin_password"))
    assert states(site, "secret") == {"ok"}
    monkeypatch.setenv("RADIA_TLS_KEY_FILE", str(tmp_path / "nowhere"))
    assert states(site, "secret") == {"ok", "fail"}


def test_a_disk_with_less_room_than_the_receiver_asks_for_fails(site: Workspace) -> None:
    assert states(site, "disk") == {"ok"}
    settings(site, intake={"receiver": {"min_free_bytes": 10**18}})
    assert states(site, "disk") == {"fail"}


def test_a_card_that_is_asked_for_and_is_not_there_fails(
    site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states(site, "GPU") == {"ok"}
    settings(site, finetune={"device": "cuda"})
    assert states(site, "GPU") == {"fail"}
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 80000 MiB'\n")
    driver.chmod(0o755)
    (found,) = of(examine(site, reach_out=False), "GPU")
    assert (found.state, found.found) == ("ok", "NVIDIA H100, 81559 MiB, 80000 MiB")


def test_a_migration_that_waits_fails(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from radia.operations import schema

    monkeypatch.setattr(schema, "_head", lambda config: "ledger_9999")
    assert "fail" in states(site, "schema")


def test_a_server_of_the_settings_that_does_not_listen_fails(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        monkeypatch.setenv("RADIA_ADDRESSES", f"web=127.0.0.1:{port} mlflow=127.0.0.1:1")
        found = {one.found: one.state for one in of(examine(site, reach_out=False), "server")}
    assert found == {"web listens": "ok", "mlflow does not listen": "fail"}


def test_telemetry_that_somebody_turned_on_fails(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(site, "telemetry") == {"ok"}
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    (found,) = of(examine(site, reach_out=False), "telemetry")
    assert (found.state, found.found) == ("fail", "on: MLFLOW_DISABLE_TELEMETRY")


def test_dagster_s_telemetry_is_looked_at_in_its_own_file(site: Workspace) -> None:
    site.dagster_home.mkdir()
    (site.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: true}")
    assert states(site, "telemetry") == {"fail"}


def test_a_certificate_of_its_own_signing_is_named(
    site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(tmp_path / "secrets")
    monkeypatch.setenv("RADIA_TLS_CERTIFICATE_FILE", str(tmp_path / "secrets" / "tls_certificate"))
    (found,) = of(examine(site, reach_out=False), "certificate")
    assert found.state == "warn"
    assert "signed by itself" in found.found


def test_a_way_out_fails_where_services_are_served_and_warns_elsewhere(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is this machine's own: nothing leaves it for this test."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        monkeypatch.setattr(doctor, "OUTSIDE", (("127.0.0.1", port),))
        assert [one.state for one in doctor._egress()] == ["warn"]
        monkeypatch.setenv("RADIA_ADDRESSES", f"web=127.0.0.1:{port}")
        assert [one.state for one in doctor._egress()] == ["fail"]
    monkeypatch.setattr(doctor, "OUTSIDE", (("127.0.0.1", 1),))
    (found,) = doctor._egress()
    assert found.state == "ok"
    assert "tried 127.0.0.1:1" in found.found


@pytest.mark.parametrize(
    ("off", "state", "words"), [(0, "ok", "PACS of HND"), (-600, "fail", "ahead of"), (600, "fail", "behind")]
)
def test_a_clock_that_is_not_that_of_the_pacs_fails(site: Workspace, off: int, state: str, words: str) -> None:
    class Pacs(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(401)
            self.send_header("Date", self.date_time_string(int(time.time()) + off))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Pacs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings(site, intake={"pacs": [{"site": "HND", "url": f"http://127.0.0.1:{server.server_port}/dicom-web"}]})
        (found,) = [one for one in of(examine(site, reach_out=False), "clock") if "HND" in one.found]
        server.shutdown()
    assert found.state == state
    assert words in found.found


def test_a_pacs_that_does_not_answer_is_named(site: Workspace) -> None:
    settings(site, intake={"pacs": [{"site": "HND", "url": "http://127.0.0.1:1/dicom-web"}]})
    assert [(one.state, one.found[:4]) for one in of(examine(site, reach_out=False), "PACS")] == [("warn", "HND:")]


def test_reports_that_go_in_the_clear_are_named(site: Workspace) -> None:
    settings(site, web={"pacs": {"host": "pacs", "ae_title": "PACS"}})
    assert states(site, "PACS") == {"warn"}
    settings(site, web={"pacs": {"host": "pacs", "ae_title": "PACS", "tls": True}})
    assert states(site, "PACS") == set()


def test_a_key_of_cookies_that_others_can_read_fails(site: Workspace) -> None:
    secret_key(site.web / "cookies.key")
    assert states(site, "key") == {"ok"}
    (site.web / "cookies.key").chmod(0o644)
    assert states(site, "key") == {"ok", "fail"}


def test_a_proxy_that_is_not_believed_is_named(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIA_ADDRESSES", "web=127.0.0.1:1")
    settings(site, web={"https": True})
    assert states(site, "web") == {"warn"}
    settings(site, web={"https": True, "trusted_proxies": ["proxy"]})
    assert states(site, "web") == set()


def test_settings_that_cannot_be_read_are_a_finding(site: Workspace) -> None:
    (site.root / "params.yaml").write_text("fintune: {}")
    (found,) = examine(site, reach_out=False)
    assert found.state == "fail"
    assert "fintune" in found.found


def test_the_worst_counts() -> None:
    sound, poor, bad = (Finding("x", state, "") for state in ("ok", "warn", "fail"))
    assert [worst(some) for some in ([], [sound], [sound, poor], [poor, bad, sound])] == ["ok", "ok", "warn", "fail"]


def test_the_command_ends_with_1_where_something_fails_and_prints_one_object(site: Workspace) -> None:
    asked = ["doctor", "--stay-in", "--json"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert {one["subject"] for one in json.loads(done.stdout)["findings"]} >= {"versions", "disk", "clock", "ledger"}
    site.ledger_key_file.chmod(0o644)
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["state"] == "fail"
