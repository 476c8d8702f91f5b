"""The auditor's role on real servers: everything can be read, nothing can be started or changed.

MLflow lets every account make an experiment or a model name of its own, which touches nothing that is there; it is the
one thing that its permissions cannot refuse.

PostgreSQL's part is in tests/unit/test_operations.py and test_ledger_postgres.py.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from radia import registry, steps
from radia.services import dagster_home, find
from radia.services.together import Started, await_port, end, start
from radia.steps import open_run
from radia.workspace import Workspace

from .conftest import EmbeddedSite

pytestmark = pytest.mark.xdist_group("main-job")

ADMINISTRATOR, AUDITOR = ("admin", secrets.token_hex(16)), (f"auditor-{secrets.token_hex(4)}", secrets.token_hex(16))


@dataclass(frozen=True)
class Servers:
    """The addresses of MLflow with accounts and of Dagster for auditors, and what MLflow holds."""

    mlflow: str
    dagster: str
    candidate: registry.Version

    def ask_mlflow(
        self, method: str, path: str, values: dict[str, Any], who: tuple[str, str] = AUDITOR
    ) -> requests.Response:
        given = {"params": values} if method == "GET" else {"json": values}
        return requests.request(method, f"{self.mlflow}/api/2.0/mlflow/{path}", auth=who, timeout=120, **given)

    def ask_dagster(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        answer = requests.post(f"{self.dagster}/dagster-readonly/graphql", json=sent, timeout=120)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        assert "errors" not in found, found["errors"]
        return dict(found["data"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def servers(site: EmbeddedSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    workspace, logs = Workspace(site.data), tmp_path_factory.mktemp("logs")
    environment = {
        **os.environ,
        "RADIA_DATA": str(site.data),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMINISTRATOR[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DAGSTER_HOME": str(dagster_home(workspace)),
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    started: list[Started] = []
    try:
        for name in ("mlflow", "dagster-webserver-readonly"):
            started.append(start(find(name), free_port(), environment, logs, "--host", "127.0.0.1"))
        for one in started:
            await_port(one)
        (candidate,) = registry.candidates(workspace)
        addresses = [f"http://127.0.0.1:{one.port}" for one in started]
        found = Servers(*addresses, candidate)
        made = {"username": AUDITOR[0], "password": AUDITOR[1]}
        found.ask_mlflow("POST", "users/create", made, ADMINISTRATOR).raise_for_status()
        yield found
    finally:
        end(started)


class TestMLflow:
    def test_shows_an_auditor_models_runs_and_metrics(self, servers: Servers) -> None:
        candidate = servers.candidate
        models = servers.ask_mlflow("GET", "registered-models/search", {}).json()["registered_models"]
        assert {"cxr", "cxr-candidate"} <= {model["name"] for model in models}
        known = {"name": candidate.name, "version": candidate.version}
        version = servers.ask_mlflow("GET", "model-versions/get", known).json()["model_version"]
        assert {tag["key"]: tag["value"] for tag in version["tags"]}["snapshot"] == candidate.tags["snapshot"]
        run = servers.ask_mlflow("GET", "runs/get", {"run_id": candidate.run_id}).json()["run"]
        assert run["data"]["metrics"]

    def test_shows_a_stranger_nothing(self, servers: Servers) -> None:
        for who in ((AUDITOR[0], "wrong"), ("", "")):
            assert servers.ask_mlflow("GET", "registered-models/search", {}, who).status_code == 401

    @pytest.mark.parametrize(
        ("method", "path", "values"),
        [
            ("POST", "runs/log-metric", {"run_id": "RUN", "key": "auroc", "value": 0.99, "timestamp": 1}),
            ("POST", "runs/log-batch", {"run_id": "RUN", "params": [{"key": "k", "value": "v"}]}),
            ("POST", "runs/log-parameter", {"run_id": "RUN", "key": "k", "value": "v"}),
            ("POST", "runs/set-tag", {"run_id": "RUN", "key": "k", "value": "v"}),
            ("POST", "runs/delete-tag", {"run_id": "RUN", "key": "k"}),
            ("POST", "runs/update", {"run_id": "RUN", "status": "FAILED"}),
            ("POST", "runs/delete", {"run_id": "RUN"}),
            ("POST", "runs/create", {"experiment_id": "EXPERIMENT"}),
            ("POST", "experiments/update", {"experiment_id": "EXPERIMENT", "new_name": "x"}),
            ("POST", "experiments/delete", {"experiment_id": "EXPERIMENT"}),
            ("POST", "experiments/set-experiment-tag", {"experiment_id": "EXPERIMENT", "key": "k", "value": "v"}),
            ("POST", "registered-models/rename", {"name": "cxr", "new_name": "x"}),
            ("PATCH", "registered-models/update", {"name": "cxr", "description": "x"}),
            ("DELETE", "registered-models/delete", {"name": "cxr"}),
            ("POST", "registered-models/alias", {"name": "cxr", "alias": "champion", "version": "1"}),
            ("DELETE", "registered-models/alias", {"name": "cxr", "alias": "champion"}),
            ("POST", "model-versions/create", {"name": "cxr", "source": "models:/cxr-candidate/1"}),
            (
                "POST",
                "model-versions/set-tag",
                {"name": "cxr-candidate", "version": "1", "key": "approval", "value": "approved"},
            ),
            ("DELETE", "model-versions/delete-tag", {"name": "cxr-candidate", "version": "1", "key": "snapshot"}),
            ("PATCH", "model-versions/update", {"name": "cxr-candidate", "version": "1", "description": "x"}),
            ("DELETE", "model-versions/delete", {"name": "cxr-candidate", "version": "1"}),
            ("POST", "users/create", {"username": "friend", "password": "a long password"}),
            ("PATCH", "users/update-admin", {"username": AUDITOR[0], "is_admin": True}),
            ("DELETE", "users/delete", {"username": "pipeline"}),
        ],
    )
    def test_refuses_every_change_of_what_is_there(
        self, servers: Servers, method: str, path: str, values: dict[str, Any]
    ) -> None:
        experiment = servers.ask_mlflow("GET", "experiments/get-by-name", {"experiment_name": registry.EXPERIMENT})
        meant = {"RUN": servers.candidate.run_id, "EXPERIMENT": experiment.json()["experiment"]["experiment_id"]}
        answer = servers.ask_mlflow(method, path, {key: meant.get(str(value), value) for key, value in values.items()})
        assert answer.status_code == 403, answer.text

    def test_holds_afterwards_what_the_ledger_recorded(self, servers: Servers) -> None:
        assert steps.verify(open_run()).models == 1


READ = "{ version runsOrError { ... on Runs { results { runId status } } } }"
DELETE = "mutation ($run: String!) { deletePipelineRun(runId: $run) { __typename } }"
NAMED = {"repositoryLocationName": "radia", "repositoryName": "__repository__"}
LAUNCH = """mutation ($job: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $job, runConfigData: {}, mode: "default"}) { __typename } }"""


class TestDagster:
    def test_shows_an_auditor_the_runs(self, servers: Servers) -> None:
        shown = servers.ask_dagster(READ)
        assert shown["version"]
        assert "SUCCESS" in {run["status"] for run in shown["runsOrError"]["results"]}

    @pytest.mark.parametrize(
        ("mutation", "variables"),
        [
            (LAUNCH, {"job": {**NAMED, "pipelineName": "retrain"}}),
            (DELETE, {}),
            ("mutation { reloadWorkspace { __typename } }", {}),
            ('mutation { shutdownRepositoryLocation(repositoryLocationName: "radia") { __typename } }', {}),
            ('mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["snapshot"]}}]) { __typename } }', {}),
            ('mutation { setConcurrencyLimit(concurrencyKey: "gpu", limit: 9) }', {}),
        ],
        ids=["launch", "delete", "reload", "shut down", "wipe", "limit"],
    )
    def test_refuses_to_start_or_change_anything(
        self, servers: Servers, mutation: str, variables: dict[str, Any]
    ) -> None:
        run = servers.ask_dagster(READ)["runsOrError"]["results"][0]["runId"]
        given = {**variables, **({"run": run} if "$run" in mutation else {})}
        sent = {"query": mutation, "variables": given}
        answer = requests.post(f"{servers.dagster}/dagster-readonly/graphql", json=sent, timeout=120).json()
        kinds = [value["__typename"] for value in (answer.get("data") or {}).values() if isinstance(value, dict)]
        # a mutation that gives no object says it in an error of its own
        assert kinds == ["UnauthorizedError"] or "unauthorizederror" in str(answer.get("errors")).lower(), answer
