"""A run whose process was killed keeps no pool and no queue waiting."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from pipelines import processes
from pipelines.processes import end_killed_runs, sign_in
from radia.services import dagster_home
from radia.workspace import Workspace


@dg.op(pool="gpu")
def train() -> None:
    """Needs the pool."""


@dg.job(executor_def=dg.in_process_executor)
def training() -> None:
    """One step."""
    train()


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def instance(site: Workspace):  # type: ignore[no-untyped-def]
    with dg.DagsterInstance.from_config(str(dagster_home(site))) as opened:
        yield opened


def begun(instance: dg.DagsterInstance) -> str:
    """A run that started, and holds the only slot of its pool."""
    run = instance.create_run_for_job(training)
    instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
    assert instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "train").is_claimed
    return run.run_id


def carried_by(site: Workspace, run_id: str, pid: int) -> None:
    sign_in(site, run_id)
    path = site.dagster_home / "processes" / f"{run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": pid}))


def test_the_slot_of_a_killed_run_is_given_back_and_the_run_has_failed(
    site: Workspace, instance: dg.DagsterInstance
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run_id = begun(instance)
    carried_by(site, run_id, gone.pid)
    assert end_killed_runs(instance, site) == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    assert training.execute_in_process(instance=instance).success
    assert end_killed_runs(instance, site) == []


def test_a_run_whose_process_lives_keeps_its_slot(site: Workspace, instance: dg.DagsterInstance) -> None:
    run_id = begun(instance)
    sign_in(site, run_id)
    assert end_killed_runs(instance, site) == []
    assert instance.event_log_storage.get_concurrency_run_ids() == {run_id}


def test_another_process_of_the_same_number_is_not_the_same(site: Workspace, instance: dg.DagsterInstance) -> None:
    run_id = begun(instance)
    sign_in(site, run_id)
    path = site.dagster_home / "processes" / f"{run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1.0}))
    assert end_killed_runs(instance, site) == [run_id]


def test_a_process_that_nobody_has_asked_after_is_gone_too(site: Workspace, instance: dg.DagsterInstance) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run_id = begun(instance)
    carried_by(site, run_id, gone.pid)
    path = site.dagster_home / "processes" / f"{run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": processes._start(gone.pid)}))
    assert end_killed_runs(instance, site) == []
    gone.kill()
    while Path(f"/proc/{gone.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert end_killed_runs(instance, site) == [run_id]
    gone.wait()


class TestARunThatHasNotSignedIn:
    """It was killed in the seconds between its start and its first asset, or is about to sign in."""

    def test_is_gone_where_the_container_came_up_after_it(
        self, site: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = instance.create_run_for_job(training, status=dg.DagsterRunStatus.STARTED)
        monkeypatch.setattr(processes, "_up_seconds", lambda: -60.0)
        assert end_killed_runs(instance, site) == [run.run_id]
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE

    def test_is_waited_for_where_it_came_later(self, site: Workspace, instance: dg.DagsterInstance) -> None:
        instance.create_run_for_job(training, status=dg.DagsterRunStatus.STARTING)
        assert end_killed_runs(instance, site) == []

    def test_is_not_waited_for_without_end(
        self, site: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = instance.create_run_for_job(training, status=dg.DagsterRunStatus.STARTED)
        monkeypatch.setattr(processes, "UNSIGNED_SECONDS", -1.0)
        assert end_killed_runs(instance, site) == [run.run_id]

    def test_that_no_process_carries_yet_is_left_alone(
        self, site: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        instance.create_run_for_job(training, status=dg.DagsterRunStatus.NOT_STARTED)
        monkeypatch.setattr(processes, "UNSIGNED_SECONDS", -1.0)
        assert end_killed_runs(instance, site) == []


def test_a_sensor_that_is_on_from_the_first_ends_killed_runs_so_that_the_queue_goes_on(
    site: Workspace, instance: dg.DagsterInstance
) -> None:
    """A killed run counts as one that writes; the next one waits for it, and would never begin to end it."""
    from pipelines.resources import Site
    from pipelines.sensors import killed_runs

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run_id = begun(instance)
    carried_by(site, run_id, gone.pid)
    assert killed_runs.default_status is dg.DefaultSensorStatus.RUNNING
    context = dg.build_sensor_context(instance=instance, resources={"site": Site(data=str(site.root))})
    said = killed_runs(context)
    assert run_id in said.skip_message
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
