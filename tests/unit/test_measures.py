"""What Prometheus is told of jobs, ledger, quarantine, disks and services; no source takes the page with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipelines import measures as jobs
from pipelines.definitions import definitions
from radia.intake.measures import ReceiverMeasures, Refusal, Rejection
from radia.ledger import open_ledger
from radia.operations import measures
from radia.operations.measures import Source, Sources, gauge
from radia.services import dagster_home
from radia.services.catalogue import Place, find
from radia.services.health import complaint
from radia.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
Figures = dict[tuple[str, ...], float]
"""Name and values of labels, in the order of their names -> figure."""


def read(text: str) -> Figures:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(families: Iterator[Metric] | list[Metric]) -> Figures:
    class Once:
        def collect(self) -> list[Metric]:
            return list(families)

    registry = CollectorRegistry()
    registry.register(Once())  # type: ignore[arg-type]
    return read(generate_latest(registry).decode())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in (
        "RADIA_DATABASE",
        "RADIA_LEDGER_KEY",
        "RADIA_LEDGER_KEY_FILE",
        "RADIA_LEDGER_ANCHOR",
        "RADIA_ADDRESSES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RADIA_DATA", str(tmp_path))
    return Workspace(tmp_path)


# --- sources --------------------------------------------------------------------------------------------------------


def sound() -> list[Metric]:
    return [gauge("radia_answer", "What it says", value=42)]


class TestSources:
    def test_one_that_fails_is_down_and_the_others_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails() -> Iterator[Metric]:
            yield gauge("radia_half", "Before it failed", value=1)
            raise ConnectionError("database at 10.1.2.3 of Tremblay")

        found = of(Sources([Source("broken", fails), Source("sound", sound)], kept=0).collect())
        assert found["radia_source_up", "broken"] == 0
        assert found["radia_source_up", "sound"] == 1
        assert found["radia_answer",] == 42
        assert ("radia_half",) not in found
        assert "broken does not answer: ConnectionError" in caplog.text
        assert "Tremblay" not in caplog.text

    def test_one_that_hangs_keeps_nobody_waiting_and_is_not_asked_a_second_time(self) -> None:
        asked, go = [], threading.Event()

        def hangs() -> list[Metric]:
            asked.append(1)
            go.wait(60)
            return sound()

        sources = Sources([Source("hangs", hangs), Source("sound", lambda: [])], kept=0, patience=2)
        for _ in range(2):
            found = of(sources.collect())
            assert (found["radia_source_up", "hangs"], found["radia_source_up", "sound"]) == (0, 1)
            assert ("radia_answer",) not in found
        assert asked == [1]
        go.set()
        until(lambda: "measures-hangs" not in [thread.name for thread in threading.enumerate()])
        found = of(sources.collect())  # asked anew: what it said late is of another time
        assert (found["radia_source_up", "hangs"], found["radia_answer",], asked) == (1, 42, [1, 1])

    def test_that_come_back_are_said_to_once(self, caplog: pytest.LogCaptureFixture) -> None:
        well = [False, False, True, True]

        def comes_back() -> list[Metric]:
            if not well.pop(0):
                raise OSError
            return sound()

        sources = Sources([Source("database", comes_back)], kept=0)
        ups = [of(sources.collect())["radia_source_up", "database"] for _ in range(4)]
        assert ups == [0, 0, 1, 1]
        assert [record.message for record in caplog.records] == [
            "metrics: database does not answer: OSError",
            "metrics: database answers again",
        ]

    def test_are_asked_no_more_often_than_every_few_seconds(self) -> None:
        asked = []
        sources = Sources([Source("costly", lambda: asked.append(1) or sound())], kept=3600)
        for _ in range(5):
            assert of(sources.collect())["radia_answer",] == 42
        assert asked == [1]

    def test_say_how_long_they_took(self) -> None:
        found = of(Sources([Source("slow", lambda: time.sleep(0.2) or sound())], kept=0).collect())
        assert 0.2 <= found["radia_source_seconds", "slow"] < 60


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within two minutes"
        time.sleep(0.1)


# --- the site -------------------------------------------------------------------------------------------------------


class TestQuarantine:
    def test_counts_refused_files_and_neither_reasons_nor_what_is_half_written(self, site: Workspace) -> None:
        assert of(measures.quarantine(site)) == {("radia_quarantine_files",): 0}
        for batch, files in (("HND-1", 2), ("HVD-1", 1), (".partial-x", 5)):
            folder = site.quarantine / batch / "deidentify"
            folder.mkdir(parents=True)
            (folder / "reasons.json").write_text("{}")
            for number in range(files):
                (folder / f"{number:064x}").write_bytes(b"DICM")
        assert of(measures.quarantine(site)) == {("radia_quarantine_files",): 3}

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_that_may_not_be_read_is_not_taken_for_empty(self, site: Workspace) -> None:
        site.quarantine.mkdir(mode=0o000)
        with pytest.raises(PermissionError):
            list(measures.quarantine(site))

    def test_that_breaks_while_it_is_read_is_not_taken_for_empty(
        self, site: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scandir(_: object) -> None:
            raise OSError(5, "Input/output error")

        site.quarantine.mkdir()
        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(OSError, match="Input/output"):
            list(measures.quarantine(site))


class TestLedger:
    def test_of_a_new_site_has_no_event_and_no_candidate(self, site: Workspace) -> None:
        found = of(measures.ledger(site))
        assert found["radia_ledger_events",] == found["radia_ledger_anchored_events",] == 0
        assert found["radia_candidates_waiting",] == found["radia_candidates_waiting_oldest_seconds",] == 0
        assert ("radia_backup_timestamp_seconds",) not in found
        assert not (site.root / "ledger.db").exists()  # asking makes nothing

    def test_that_lost_events_has_fewer_than_its_anchor_proves(self, site: Workspace) -> None:
        ledger = open_ledger(site)
        ledger.append("read", actor="a")
        ledger.close()
        shutil.copyfile(site.root / "ledger.db", site.root / "older.db")
        ledger = open_ledger(site)
        event = ledger.append("backup", actor="a")
        ledger.close()
        found = of(measures.ledger(site))
        assert found["radia_ledger_events",] == found["radia_ledger_anchored_events",] == 2
        assert abs(found["radia_ledger_event_timestamp_seconds",] - time.time()) < 600
        assert found["radia_backup_timestamp_seconds",] == found["radia_ledger_event_timestamp_seconds",]
        assert abs(found["radia_ledger_anchor_timestamp_seconds",] - time.time()) < 600
        assert event.sequence == 2
        shutil.copyfile(site.root / "older.db", site.root / "ledger.db")
        found = of(measures.ledger(site))
        assert (found["radia_ledger_events",], found["radia_ledger_anchored_events",]) == (1, 2)

    def test_counts_candidates_until_a_person_approves_or_rejects_them(
        self, site: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger, names = open_ledger(site), [f"cxr-candidate/{number}" for number in range(4)]

        def waiting() -> float:
            return of(measures.ledger(site))["radia_candidates_waiting",]

        made = [ledger.append("register", actor="radia", outputs={name: "run", "record": "digest"}) for name in names]
        assert waiting() == 4
        refused = {"refused": "the gate did not pass", "approver": "Dr Roy"}
        ledger.append("reject", actor="radia", inputs={names[0]: "run"}, parameters=refused)
        assert waiting() == 4  # an approval that the rules refuse is no answer
        ledger.append("reject", actor="radia", inputs={names[0]: "run"}, parameters={"approver": "Dr Roy"})
        ledger.append("promote", actor="radia", inputs={names[2]: "run"}, outputs={"cxr/2": "run"})
        assert waiting() == 2
        ledger.close()
        a_week_on = time.time() + 7 * 86_400
        monkeypatch.setattr(time, "time", lambda: a_week_on)
        age = of(measures.ledger(site))["radia_candidates_waiting_oldest_seconds",]
        assert age == pytest.approx(a_week_on - datetime.fromisoformat(made[1].at).timestamp(), abs=1e-5)

    def test_that_is_damaged_is_down_and_takes_nothing_with_it(self, site: Workspace) -> None:
        (site.root / "ledger.db").write_bytes(b"no database" * 100)
        found = of(Sources(measures.site_sources(site), kept=0).collect())
        assert {name: up for (kind, *name), up in found.items() if kind == "radia_source_up" for name in name} == {
            "disks": 1,
            "quarantine": 1,
            "ledger": 0,
            "services": 1,
        }
        assert ("radia_quarantine_files",) in found
        assert ("radia_ledger_events",) not in found


def test_disks_are_those_of_the_folders_that_are_there(site: Workspace) -> None:
    site.landing.mkdir()
    found = of(measures.disks(site))
    assert {name[1] for name in found} == {"data", "landing", "anchor"}
    usage = shutil.disk_usage(site.landing)
    assert found["radia_disk_bytes", "landing"] == usage.total
    assert 0 < found["radia_disk_free_bytes", "landing"] < usage.total


def test_services_listen_or_do_not(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as there, closing(socket.socket()) as gone:
        there.bind(("127.0.0.1", 0))
        there.listen()
        gone.bind(("127.0.0.1", 0))  # and does not listen
        places = [f"{name}=127.0.0.1:{one.getsockname()[1]}" for name, one in (("mlflow", there), ("web", gone))]
        monkeypatch.setenv("RADIA_ADDRESSES", " ".join(places))
        found = of(measures.services())
    assert found == {("radia_service_listens", "mlflow"): 1, ("radia_service_listens", "web"): 0}


# --- jobs -----------------------------------------------------------------------------------------------------------


@dg.op
def works() -> None:
    """Ends well."""


@dg.op
def breaks() -> None:
    """Fails."""
    raise RuntimeError("Tremblay^Luc")


@dg.job(name="retrain")
def good() -> None:
    """A run that ends well."""
    works()


@dg.job(name="retrain")
def bad() -> None:
    """A run that fails."""
    breaks()


@dg.job(name="Tremblay_Luc")
def unknown() -> None:
    """A job that is not of the definitions."""
    works()


@pytest.fixture
def instance(site: Workspace) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home(site))) as opened:
        yield opened


class TestJobs:
    def test_are_those_of_the_definitions_and_assets_chosen_by_hand(self) -> None:
        known = {job.name for job in definitions.get_repository_def().get_all_jobs()}
        assert known == set(jobs.JOBS)

    def test_are_counted_by_their_end(self, instance: dg.DagsterInstance) -> None:
        assert of(jobs.runs(instance))["radia_runs", "success", "retrain"] == 0
        assert ("radia_run_success_timestamp_seconds", "retrain") not in of(jobs.runs(instance))
        began = time.time()
        for _ in range(2):
            good.execute_in_process(instance=instance)
        well = time.time()
        bad.execute_in_process(instance=instance, raise_on_error=False)
        instance.report_run_canceled(instance.create_run_for_job(good))
        unknown.execute_in_process(instance=instance)
        found = of(jobs.runs(instance))
        ended = {name[1]: n for name, n in found.items() if name[0] == "radia_runs" and name[2] == "retrain"}
        assert ended == {"success": 2, "failure": 1, "cancelled": 1}
        assert began <= found["radia_run_success_timestamp_seconds", "retrain"] <= well
        failed = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
        assert found["radia_run_seconds", "retrain"] == pytest.approx(failed.end_time - failed.start_time)
        assert {name[-1] for name in found if name[0] == "radia_runs"} == {"retrain", "pacs", "assets"}

    def test_that_wait_or_run_are_counted_with_the_age_of_the_oldest(
        self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("radia"), "definitions")
        for job, status in (
            (good, dg.DagsterRunStatus.QUEUED),
            (good, dg.DagsterRunStatus.NOT_STARTED),
            (good, dg.DagsterRunStatus.STARTED),
            (unknown, dg.DagsterRunStatus.QUEUED),
        ):
            instance.create_run_for_job(job, status=status, remote_job_origin=RemoteJobOrigin(place, job.name))
        first = instance.get_run_records(ascending=True)[0].create_timestamp.timestamp()
        an_hour_on = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: an_hour_on)
        found = of(jobs.runs(instance))
        assert found["radia_runs_under_way", "retrain", "queued"] == 2
        assert found["radia_runs_under_way", "retrain", "running"] == 1
        assert found["radia_runs_under_way", "pacs", "queued"] == 0
        age = found["radia_runs_under_way_oldest_seconds", "retrain", "queued"]
        assert age == pytest.approx(an_hour_on - first, abs=1e-5)
        assert found["radia_runs_under_way_oldest_seconds", "pacs", "queued"] == 0

    def test_have_a_daemon_of_which_each_duty_is_shown(self, instance: dg.DagsterInstance) -> None:
        from dagster._daemon.types import DaemonHeartbeat

        assert of(jobs.daemons(instance)) == {}
        instance.add_daemon_heartbeat(DaemonHeartbeat(1_700_000_000.0, "SENSOR", "one"))
        instance.add_daemon_heartbeat(DaemonHeartbeat(1_700_000_000.0, "Tremblay^Luc", "one"))
        assert of(jobs.daemons(instance)) == {("radia_daemon_heartbeat_timestamp_seconds", "sensor"): 1_700_000_000.0}

    def test_whose_records_cannot_be_read_are_down_and_the_site_is_not(self, site: Workspace) -> None:
        (site.dagster_home / "history").mkdir(parents=True)
        (site.dagster_home / "history" / "runs.db").mkdir()
        found = read(generate_latest(jobs.registry(site)).decode())
        assert found["radia_source_up", "dagster"] == 0
        assert found["radia_source_up", "ledger"] == 1
        assert found["radia_quarantine_files",] == 0

    def test_page_is_beside_the_code_server_and_holds_nobodys_name(
        self, site: Workspace, instance: dg.DagsterInstance
    ) -> None:
        bad.execute_in_process(instance=instance, raise_on_error=False)
        unknown.execute_in_process(instance=instance)
        ledger = open_ledger(site)
        said = {"approver": "Dr Roy", "reason": "seen by Roy"}
        ledger.append("register", actor="radia", outputs={"cxr-candidate/1": "run"})
        ledger.append("reject", actor="Lavoie", inputs={"cxr-candidate/1": "run"}, parameters=said)
        ledger.close()
        refused = site.quarantine / "HND-20260101-1" / "deidentify"
        refused.mkdir(parents=True)
        (refused / ("a" * 64)).write_bytes(b"Tremblay")
        (refused / "reasons.json").write_text(json.dumps({"a" * 64: "Tremblay"}))
        with free_ports(2) as (code, metrics):
            service = find("dagster-code")
            here = Place(site, port=code)
        command = [sys.executable, "-m", "radia", "serve", "dagster-code", "--port", str(code)]
        environment = {**os.environ, "RADIA_DATA": str(site.root), "RADIA_METRICS": f"dagster-code={metrics}"}
        with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as server:
            try:
                until(lambda: server.poll() is not None or all_answer(metrics))
                text = fetched(metrics)
                until(lambda: complaint(service, here) == "")
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(60)
        found = read(text)
        assert found["radia_runs", "failure", "retrain"] == 1
        assert found["radia_quarantine_files",] == 1
        assert found["radia_candidates_waiting",] == 0
        assert found["process_resident_memory_bytes",] > 10_000_000
        assert [name for name in ("Tremblay", "Luc", "Roy", "Lavoie", "HND", "aaaa") if name in text] == []


class free_ports:  # noqa: N801
    """Ports that nobody had when the block began."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> list[int]:
        for one in self._sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in self._sockets]

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


def fetched(port: int) -> str:
    return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode())


def all_answer(port: int) -> bool:
    """Whether the page is there, and no source of it was slow: a busy machine may open Dagster's records late."""
    with suppress(OSError):
        return {n for name, n in read(fetched(port)).items() if name[0] == "radia_source_up"} == {1}
    return False


# --- what the administrator's page says ------------------------------------------------------------------------------


PAGE = (ROOT / "docs" / "administration.md").read_text()
BLOCKS: list[dict[str, Any]] = [
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("# ")
]


@pytest.fixture
def exposed(site: Workspace, instance: dg.DagsterInstance) -> set[str]:
    """Every name of ours that the two pages can show."""
    good.execute_in_process(instance=instance)
    ledger = open_ledger(site)
    ledger.append("backup", actor="a")
    ledger.close()
    receiver = ReceiverMeasures(site.root, ["HND"], min_free_bytes=0, associations=lambda: 0)
    texts = [generate_latest(registry).decode() for registry in (receiver.registry, jobs.registry(site))]
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for text in texts
        for family in text_string_to_metric_families(text)
    }
    return {name for name in names if name.startswith("radia_") and not name.endswith("_created")}


class TestAdministratorsPage:
    def test_lists_the_metrics_that_there_are_and_no_other(self, exposed: set[str]) -> None:
        section = PAGE.partition("## Metrics")[2].partition("Prometheus runs")[0]
        listed = set(re.findall(r"`(radia_\w+)", section))
        assert "`…_rejected_total{reason}`" in section
        assert listed | {"radia_receiver_associations_rejected_total"} == exposed

    def test_lists_every_reason(self) -> None:
        section = PAGE.partition("## Metrics")[2].partition("Prometheus runs")[0]
        for reasons in (Rejection, Refusal):
            assert ", ".join(f"`{reason}`" for reason in reasons.__args__) in section

    def test_has_alerts_on_metrics_that_there_are(self, exposed: set[str]) -> None:
        (rules,) = [group["rules"] for block in BLOCKS for group in block.get("groups", ())]
        assert len(rules) > 10
        for rule in rules:
            named = set(re.findall(r"\bradia_\w+", rule["expr"]))
            assert named <= exposed, rule["alert"]
            assert named or "up{" in rule["expr"]

    def test_scrapes_the_addresses_of_the_compose_file(self) -> None:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        (jobs_,) = [block["scrape_configs"] for block in BLOCKS if "scrape_configs" in block]
        targets = {one["static_configs"][0]["targets"][0] for one in jobs_}
        pages = [services[name]["environment"]["RADIA_METRICS"] for name in ("receiver", "dagster-code")]
        expected = {page.replace("=0.0.0.0:", ":") for page in pages} | {f"web:{find('web').port}"}
        assert targets == expected
        (added,) = [block["services"]["prometheus"] for block in BLOCKS if "prometheus" in block.get("services", ())]
        assert "inside" in added["networks"]
        assert all(port.startswith("127.0.0.1:") for port in added["ports"])
