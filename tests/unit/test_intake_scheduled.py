"""Intake as Dagster runs it: sensors, the PACS day by day, retries, pools, notices, sites that are late."""

import asyncio
import json
import logging
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_run_for_test, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.backfill import execute_backfill_iteration

import pipelines.jobs
from pipelines.assets.intake import expected_feeds, landing
from pipelines.definitions import definitions
from pipelines.jobs import pacs_job
from pipelines.resources import Site
from pipelines.schedules import pacs_daily
from pipelines.sensors import failure_notice, inbox_sensor, receipt_sensor
from radia import steps
from radia.errors import IntakeError, NoticeError
from radia.intake import Receipt
from radia.intake import pacs as pacs_module
from radia.intake.landing import Spool
from radia.services.instance import CONFIG
from radia.settings import IntakeSettings, PacsSettings, load_settings

TODAY = date(2026, 11, 23)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's data folder."""
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def write_params(data: Path, **sections: Any) -> None:
    (data / "params.yaml").write_text(yaml.safe_dump(sections))


def put(path: Path, *, age: float = 3600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode())
    os.utime(path, (time.time() - age, time.time() - age))


def arrive(data: Path, site: str, *contents: bytes) -> Receipt:
    """A batch that came over the network, beside Dagster."""
    spool = Spool(data / "landing", site)
    for number, content in enumerate(contents):
        spool.write(f"{number}.dcm", content)
    receipt = spool.seal(TODAY)
    assert receipt is not None
    return receipt


def materialized(instance: dg.DagsterInstance, *key: str) -> set[str | None]:
    """The partitions of an asset that were materialized; None stands for the asset as a whole."""
    records = instance.fetch_materializations(dg.AssetKey(list(key)), limit=100).records
    return {record.partition_key for record in records}


class TestInboxSensor:
    def look(self, instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[Any, str | None]:
        context = dg.build_sensor_context(instance=instance, resources={"site": Site()}, cursor=cursor)
        return inbox_sensor(context), context.cursor

    def test_starts_the_job_once_for_what_lies_there(self, data: Path, instance: dg.DagsterInstance) -> None:
        put(data / "inbox" / "HND" / "a.dcm")
        request, cursor = self.look(instance)
        assert isinstance(request, dg.RunRequest)
        again, _ = self.look(instance, cursor)
        assert isinstance(again, dg.SkipReason)

    def test_lets_a_growing_site_wait_and_others_go(self, data: Path, instance: dg.DagsterInstance) -> None:
        put(data / "inbox" / "HND" / "a.dcm")
        put(data / "inbox" / "HVD" / "b.dcm", age=0)
        first, cursor = self.look(instance)
        dg.validate_run_config(definitions.resolve_job_def("retrain"), first.run_config)
        done = dg.materialize(
            [landing], instance=instance, resources={"site": Site()}, run_config=first.run_config, raise_on_error=True
        )
        assert done.success
        assert {name.split("-")[0] for name in instance.get_dynamic_partitions("batches")} == {"HND"}
        put(data / "inbox" / "HVD" / "c.dcm", age=0)
        assert isinstance(self.look(instance, cursor)[0], dg.SkipReason)
        put(data / "inbox" / "HVD" / "b.dcm")
        put(data / "inbox" / "HVD" / "c.dcm")
        second, _ = self.look(instance, cursor)
        assert isinstance(second, dg.RunRequest)
        assert second.run_key != first.run_key

    def test_waits_as_long_as_the_settings_say(self, data: Path, instance: dg.DagsterInstance) -> None:
        put(data / "inbox" / "HND" / "a.dcm", age=600)
        write_params(data, intake={"quiet_seconds": 3000})
        assert isinstance(self.look(instance)[0], dg.SkipReason)
        write_params(data, intake={"quiet_seconds": 300})
        assert isinstance(self.look(instance)[0], dg.RunRequest)

    def test_says_that_there_is_nothing(self, data: Path, instance: dg.DagsterInstance) -> None:
        assert isinstance(self.look(instance)[0], dg.SkipReason)


class TestReceiptSensor:
    def look(self, instance: dg.DagsterInstance) -> Any:
        """What the sensor says, with the partitions added as Dagster's daemon adds them."""
        said = receipt_sensor(dg.build_sensor_context(instance=instance, resources={"site": Site()}))
        for request in getattr(said, "dynamic_partitions_requests", None) or ():
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        return said

    def test_shows_a_batch_that_came_beside_dagster_and_starts_the_job(
        self, data: Path, instance: dg.DagsterInstance
    ) -> None:
        receipt = arrive(data, "HND", b"one")
        said = self.look(instance)
        assert len(said.run_requests) == 1
        assert instance.get_dynamic_partitions("batches") == [receipt.batch]
        assert [(event.asset_key.to_user_string(), event.partition) for event in said.asset_events] == [
            ("batch", receipt.batch)
        ]
        assert isinstance(self.look(instance), dg.SkipReason)

    def test_says_that_an_expected_site_sent(self, data: Path, instance: dg.DagsterInstance) -> None:
        write_params(data, intake={"expected_hours": {"HND": 26}})
        arrive(data, "HND", b"one")
        arrive(data, "HVD", b"two")
        keys = {event.asset_key.to_user_string() for event in self.look(instance).asset_events}
        assert keys == {"batch", "feed/HND"}

    def test_tells_the_ledger_of_it(self, data: Path, instance: dg.DagsterInstance) -> None:
        receipt = arrive(data, "HND", b"one")
        self.look(instance)
        run = steps.open_run(data=data)
        assert [receipt.batch in event.outputs for event in run.ledger.events()] == [True]

    def test_waits_while_a_run_is_under_way(self, data: Path, instance: dg.DagsterInstance) -> None:
        arrive(data, "HND", b"one")
        run = create_run_for_test(instance, job_name="retrain", status=dg.DagsterRunStatus.STARTED)
        assert isinstance(self.look(instance), dg.SkipReason)
        instance.report_run_failed(run)
        assert self.look(instance).run_requests

    def test_leaves_alone_what_a_run_took_itself(self, data: Path, instance: dg.DagsterInstance) -> None:
        put(data / "inbox" / "HND" / "a.dcm")
        dg.materialize([landing], instance=instance, resources={"site": Site()})
        assert isinstance(self.look(instance), dg.SkipReason)


class TestLanding:
    def test_makes_a_batch_of_what_a_killed_receiver_left(self, data: Path, instance: dg.DagsterInstance) -> None:
        spool = Spool(data / "landing", "HND")
        spool.write("1.dcm", b"one")
        spool._lock.close()  # as when its owner dies
        assert dg.materialize([landing], instance=instance, resources={"site": Site()}).success
        assert len(instance.get_dynamic_partitions("batches")) == 1

    def test_run_again_over_the_same_inbox_takes_nothing_twice(self, data: Path, instance: dg.DagsterInstance) -> None:
        put(data / "inbox" / "HND" / "a.dcm")
        for _ in range(2):
            assert dg.materialize([landing], instance=instance, resources={"site": Site()}).success
        assert len(instance.get_dynamic_partitions("batches")) == 1
        batches = instance.fetch_materializations(dg.AssetKey("batch"), limit=10).records
        assert len(batches) == 1

    def test_notes_the_site_that_sent(self, data: Path, instance: dg.DagsterInstance) -> None:
        write_params(data, intake={"expected_hours": {"HND": 26, "HVD": 26}})
        put(data / "inbox" / "HND" / "a.dcm")
        dg.materialize([landing], instance=instance, resources={"site": Site()})
        assert materialized(instance, "feed", "HND") == {None}
        assert materialized(instance, "feed", "HVD") == set()


class Pacs:
    """Stands for the DICOMweb client, of which test_intake_network.py tells: notes the days it is asked for."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[tuple[date, date]] = []
        self.failures = failures

    def __call__(self, pacs: PacsSettings, landing: Path, *, since: date, until: date, **_: object) -> list[Receipt]:
        self.asked.append((since, until))
        if len(self.asked) <= self.failures:
            raise IntakeError("the PACS failed: run again to go on")
        return [arrive(landing.parent, pacs.site, f"{since}".encode())]


@pytest.fixture
def configured(data: Path) -> Path:
    write_params(data, intake={"pacs": [{"site": "HND", "url": "http://127.0.0.1:1"}], "overlap_days": 1})
    return data


class TestPacs:
    def job(self, **changes: Any) -> dg.JobDefinition:
        return pacs_job(IntakeSettings.model_validate({"retries": 2, "retry_seconds": 0} | changes))

    def fetch(self, instance: dg.DagsterInstance, **changes: Any) -> dg.ExecuteInProcessResult:
        return self.job(**changes).execute_in_process(
            partition_key="2026-01-15", instance=instance, resources={"site": Site()}, raise_on_error=False
        )

    def test_asks_for_a_day_and_those_around_it(
        self, configured: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pacs_module, "take_pacs", asked := Pacs())
        assert self.fetch(instance).success
        assert asked.asked == [(date(2026, 1, 14), date(2026, 1, 16))]
        assert materialized(instance, "pacs_day") == {"2026-01-15"}
        assert instance.get_dynamic_partitions("batches") == ["HND-20261123-1"]

    def test_is_asked_again_where_it_cannot_be_reached(
        self, configured: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pacs_module, "take_pacs", Pacs(failures=2))
        result = self.fetch(instance)
        assert result.success
        retried = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
        assert len(retried) == 2

    def test_fails_when_it_cannot_be_reached_at_all(
        self, configured: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pacs_module, "take_pacs", asked := Pacs(failures=9))
        assert not self.fetch(instance).success
        assert len(asked.asked) == 3
        assert materialized(instance, "pacs_day") == set()

    def test_waits_longer_each_time(self) -> None:
        policy = self.job(retry_seconds=60).all_node_defs[0].retry_policy
        assert policy is not None
        waits = [policy.calculate_delay(attempt) for attempt in (1, 2, 3)]
        assert 0 < waits[0] <= 120
        assert policy.backoff == dg.Backoff.EXPONENTIAL

    def test_that_is_not_configured_is_named_and_not_tried_again(
        self, data: Path, instance: dg.DagsterInstance
    ) -> None:
        result = self.fetch(instance)
        assert not result.success
        assert not [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
        (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        assert "intake.pacs" in str(failure.user_failure_data)

    def test_is_asked_every_morning_for_the_day_before(self) -> None:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime(2026, 11, 23, 6, tzinfo=UTC),
            repository_def=definitions.get_repository_def(),
        )
        (request,) = pacs_daily.evaluate_tick(context).run_requests
        assert request.partition_key == "2026-11-22"
        assert pacs_daily.default_status == dg.DefaultScheduleStatus.STOPPED
        assert pacs_daily.cron_schedule == "0 6 * * *"

    def test_days_of_long_ago_are_fetched_by_a_backfill(
        self, configured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pacs_module, "take_pacs", asked := Pacs())
        with at_home(tmp_path, AT_ONCE) as instance, workspace(instance) as context:
            (location,) = context.create_request_context().code_locations
            (repository,) = location.get_repositories().values()
            origin = repository.get_partition_set("pacs_partition_set").get_remote_origin()
            days = ["2026-01-10", "2026-01-11", "2026-01-12"]
            instance.add_backfill(
                PartitionBackfill(
                    backfill_id="january",
                    partition_set_origin=origin,
                    status=BulkActionStatus.REQUESTED,
                    partition_names=days,
                    from_failure=False,
                    reexecution_steps=None,
                    tags=None,
                    backfill_timestamp=time.time(),
                )
            )
            errors = [error for error in execute_backfill_iteration(context, logging.getLogger("backfill")) if error]
            assert errors == []
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 3
            assert materialized(instance, "pacs_day") == set(days)
        assert [first for first, _ in asked.asked] == [date(2026, 1, 9), date(2026, 1, 10), date(2026, 1, 11)]

    def test_is_asked_by_one_run_at_a_time(
        self, configured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pacs_module, "take_pacs", asked := Pacs())
        with at_home(tmp_path, CONFIG) as instance:
            storage = instance.event_log_storage
            storage.initialize_concurrency_limit_to_default("pacs")
            assert storage.claim_concurrency_slot("pacs", "another", "its_step").is_claimed
            second = threading.Thread(target=self.fetch, args=[instance])
            second.start()
            wait_until(lambda: storage.get_concurrency_info("pacs").pending_step_count == 1)
            assert asked.asked == []
            storage.free_concurrency_slots_for_run("another")
            second.join(timeout=60)
        assert len(asked.asked) == 1

    def test_shares_the_gpu_as_little(self) -> None:
        graph = definitions.get_repository_def().asset_graph
        training = {key.to_user_string() for key in graph.get_all_asset_keys() if "gpu" in (graph.get(key).pools or ())}
        assert training >= {"base_model", "candidate"}


LAUNCHER = "dagster._core.launcher.sync_in_memory_run_launcher"
AT_ONCE = {
    "run_launcher": {"module": LAUNCHER, "class": "SyncInMemoryRunLauncher"},
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
}
"""Runs that a daemon starts are done in this process, before it goes on."""


@contextmanager
def at_home(folder: Path, config: dict[str, Any]) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}} | config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def workspace(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """RADIA's definitions as Dagster's daemon sees them, in this process."""
    from dagster._core.remote_origin import InProcessCodeLocationOrigin

    target = LoadableTargetOrigin(module_name="pipelines.definitions", attribute="definitions")
    with WorkspaceProcessContext(
        instance, InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(target))
    ) as context:
        yield context


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within a minute"
        time.sleep(0.05)


# --- notices --------------------------------------------------------------------------------------------------------


@contextmanager
def web_server(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keeps quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
        server.shutdown()


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """As much of SMTP (RFC 5321) as a mail without credentials needs."""
    got: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().strip().upper():
                if line == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    got.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 yes\r\n")
                if line == b"QUIT":
                    return

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1]), got
        server.shutdown()


@dg.op
def read_film() -> None:
    raise ValueError("cannot read the film of Tremblay^Marie, T4711")


@dg.job
def films() -> None:
    read_film()


class TestFailureNotice:
    def notice(self, instance: dg.DagsterInstance) -> None:
        """Runs a job that fails, and the sensor on it."""
        result = films.execute_in_process(instance=instance, raise_on_error=False)
        (failure,) = [event for event in result.all_events if event.is_job_failure]
        context = dg.build_run_status_sensor_context(
            sensor_name="failure_notice",
            dagster_event=failure,
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources={"site": Site()},
        )
        failure_notice(context.for_run_failure())

    def test_goes_to_a_webhook_and_names_no_patient(self, data: Path, instance: dg.DagsterInstance) -> None:
        with web_server() as (address, got):
            write_params(data, notify={"webhook": address})
            self.notice(instance)
        (notice,) = got
        assert notice["job"] == "films"
        assert notice["steps"] == ["read_film"]
        assert notice["errors"] == ["ValueError"]
        assert notice["page"] == f"http://127.0.0.1:3000/runs/{notice['run']}"
        assert "Tremblay" not in json.dumps(notice)
        assert "T4711" not in json.dumps(notice)

    def test_goes_by_mail_and_names_no_patient(self, data: Path, instance: dg.DagsterInstance) -> None:
        with mail_server() as (port, got):
            email = {"host": "127.0.0.1", "port": port, "recipients": ["engineer@hospital.example"]}
            write_params(data, notify={"email": email})
            self.notice(instance)
        (mail,) = got
        assert "To: engineer@hospital.example" in mail
        assert "films failed in read_film (ValueError)" in mail
        assert "Tremblay" not in mail
        assert "T4711" not in mail

    def test_has_its_secret_address_from_the_environment(
        self, data: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with web_server() as (address, got):
            monkeypatch.setenv("HOOK", address)
            write_params(data, notify={"webhook_variable": "HOOK"})
            self.notice(instance)
        assert len(got) == 1

    def test_that_cannot_be_sent_one_way_is_sent_the_other_and_the_sensor_fails(
        self, data: Path, instance: dg.DagsterInstance
    ) -> None:
        with web_server(status=500) as (address, _), mail_server() as (port, mails):
            email = {"host": "127.0.0.1", "port": port, "recipients": ["engineer@hospital.example"]}
            write_params(data, notify={"webhook": address, "email": email})
            with pytest.raises(NoticeError, match="the webhook answered 500"):
                self.notice(instance)
        assert len(mails) == 1

    def test_goes_nowhere_by_default(self, data: Path, instance: dg.DagsterInstance) -> None:
        assert load_settings().notify.webhook is None
        assert load_settings().notify.email is None
        self.notice(instance)


# --- sites that are late --------------------------------------------------------------------------------------------


class TestFeeds:
    def test_are_expected_of_nobody_by_default(self) -> None:
        assert expected_feeds(IntakeSettings()) == []

    def test_are_late_when_nothing_came_in_time(self, data: Path, instance: dg.DagsterInstance) -> None:
        write_params(data, intake={"expected_hours": {"HND": 26}})
        graph = dg.Definitions(assets=expected_feeds(load_settings().intake)).resolve_asset_graph()
        node = graph.get(dg.AssetKey(["feed", "HND"]))

        def state() -> FreshnessState:
            evaluated = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(LoadingContextForTest(instance), node)
            return asyncio.run(evaluated)

        assert state() == FreshnessState.UNKNOWN
        put(data / "inbox" / "HND" / "a.dcm")
        dg.materialize([landing], instance=instance, resources={"site": Site()})
        assert state() == FreshnessState.PASS
        with freeze_time(datetime.now(UTC) + timedelta(hours=27)):
            assert state() == FreshnessState.FAIL
        put(data / "inbox" / "HND" / "b.dcm")
        dg.materialize([landing], instance=instance, resources={"site": Site()})
        assert state() == FreshnessState.PASS


def test_what_starts_work_or_tells_people_is_off_until_it_is_turned_on() -> None:
    repository = definitions.get_repository_def()
    on = {sensor.name for sensor in repository.sensor_defs if sensor.default_status is dg.DefaultSensorStatus.RUNNING}
    assert on == {"killed_runs"}
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}


def test_the_configuration_of_dagster_is_one_that_it_takes(tmp_path: Path) -> None:
    with at_home(tmp_path, CONFIG) as instance:
        assert instance.global_op_concurrency_default_limit == 1
        assert pipelines.jobs.retrain.tags["radia/writes"]
