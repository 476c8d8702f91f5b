"""What a person's word in MLflow does, what it cannot do, and what stays in the record."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from radia import approval, digests, gate, registry
from radia.errors import PromotionRefused, RegistryError
from radia.ledger import Ledger, open_ledger
from radia.registry import connection, records, runs
from radia.settings import GateSettings
from radia.workspace import Workspace


def evaluation(gain: float) -> dict:
    """As little of an evaluation as the gate's rules need: a candidate that gains so much mean AUROC."""

    def figure(value: float) -> dict:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    means = {"all": {"auroc": figure(0.7), "ece": figure(0.05), "f1": figure(0.5)}}
    model = {"n": 100, "findings": {}, "means": means, "thresholds": {}}
    return {
        "n": 100,
        "patients": 80,
        "findings": [],
        "models": {"base": model, "candidate": model},
        "differences": {"findings": {}, "means": {"all": {"auroc": figure(gain)}}},
        "groups": [],
        "curves": {},
        "estimates": {},
    }


RULES = GateSettings(must_be_shown=("held-out images", "mean AUROC gain"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a base in use and three candidates: 1 and 2 passed the gate, 3 did not."""
    site = Workspace(tmp_path_factory.mktemp("approval") / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        fill(site)
    return site.root


def fill(site: Workspace) -> None:
    registry.register_champion(site, write_checkpoint(site.root / "base", b"base"), "The base.")
    register_candidate(site, open_ledger(site), b"one", gain=0.05)
    register_candidate(site, open_ledger(site), b"two", gain=0.06)
    register_candidate(site, open_ledger(site), b"three", gain=-0.2)


def write_checkpoint(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_text("{}")
    return folder


def register_candidate(site: Workspace, ledger: Ledger, weights: bytes, *, gain: float) -> registry.Candidate:
    """Registers as the step `register` does."""
    folder = site.root / weights.decode() / "evaluation"
    checkpoint = write_checkpoint(site.root / weights.decode() / "candidate", weights)
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(evaluation(gain)))
    (folder / "decision.json").write_text(json.dumps(gate.decide(evaluation(gain), RULES).as_json()))
    evidence = {"snapshot": digests.of_json(weights.decode()), "checkpoint": digests.of_folder(checkpoint)}
    evidence |= {name: digests.of_file(folder / f"{name}.json") for name in ("metrics", "decision")}
    made = registry.log_candidate(
        site,
        run_name=weights.decode(),
        params={},
        metrics={"candidate/auroc/mean all": 0.7},
        artifacts=[folder],
        checkpoint=checkpoint,
        tags={**evidence, "gate": "passed" if gain > 0 else "failed"},
        card="# Card",
    )
    outputs = {f"cxr-candidate/{made.version}": made.run_id, "record": made.record}
    ledger.append("register", actor="radia", inputs=evidence, outputs=outputs)
    return made


@pytest.fixture
def site(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(template, tmp_path / "site")
    monkeypatch.setattr(records, "local", in_the_copy)
    return Workspace(tmp_path / "site")


def in_the_copy(site: Workspace, location: str) -> Path:
    """MLflow keeps absolute paths: they lead to the template, and a test works on its copy."""
    return site.mlflow_artifacts / location.partition("/mlartifacts/")[2]


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    return open_ledger(site)


def say(site: Workspace, version: str, **tags: str) -> None:
    """What a person does in MLflow's page of a version."""
    with connection.client(site) as client:
        for name, value in tags.items():
            client.set_model_version_tag("cxr-candidate", version, name, value)


def approve(site: Workspace, version: str, **tags: str) -> None:
    say(site, version, **{"approval": "approved", "approver": "Dr Côté", "reason": "better on effusions", **tags})


def act(site: Workspace, ledger: Ledger, **rules: object) -> list[approval.Acted]:
    return approval.act_on_approvals(site, ledger, settings=RULES.model_copy(update=rules), actor="sensor")


def in_use(site: Workspace) -> bytes:
    return (registry.checkpoint_folder(site, registry.CHAMPION_URI) / "model.safetensors").read_bytes()


class TestApproval:
    def test_puts_the_candidate_in_use_and_keeps_the_former_as_previous(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "1")
        [acted] = act(site, ledger)
        assert (acted.outcome, acted.version, acted.approver) == ("promoted", "cxr/2", "Dr Côté")
        assert in_use(site) == b"one"
        assert registry.find(site, "cxr@previous").version == "1"
        tags = registry.champion(site).tags
        assert (tags["approver"], tags["promoted"], tags["gate"]) == ("Dr Côté", "cxr-candidate/1", "passed")

    def test_is_recorded_with_approver_evidence_and_gate(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "1")
        act(site, ledger)
        event = ledger.last("promote")
        assert event.actor == "sensor"
        assert event.parameters["approver"] == "Dr Côté"
        assert event.parameters["reason"] == "better on effusions"
        assert event.parameters["gate"]["passed"] is True
        assert event.parameters["previous"] == "cxr/1"
        assert event.inputs["metrics"] == registry.find(site, "1").tags["metrics"]
        assert list(event.outputs) == ["cxr/2"]

    def test_is_acted_on_once(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "1")
        act(site, ledger)
        assert act(site, ledger) == []
        assert len(ledger.events(action="promote")) == 1
        assert len(registry.versions(site, "cxr")) == 2

    def test_that_was_cut_off_is_finished_by_the_next_call(
        self, site: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        approve(site, "1")

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "append", killed)
            with pytest.raises(KeyboardInterrupt):
                act(site, ledger)
        [acted] = act(site, ledger)
        assert acted.version == "cxr/2"
        assert len(registry.versions(site, "cxr")) == 2
        assert [event.parameters["previous"] for event in ledger.events(action="promote")] == ["cxr/1"]

    def test_by_copying_to_cxr_counts_too(self, site: Workspace, ledger: Ledger) -> None:
        with connection.client(site) as client:
            client.copy_model_version("models:/cxr-candidate/2", "cxr")
            client.set_model_version_tag("cxr", "2", "approver", "Dr Côté")
        [acted] = act(site, ledger)
        assert (acted.outcome, acted.version) == ("promoted", "cxr/2")
        assert in_use(site) == b"two"
        assert act(site, ledger) == []

    def test_refused_is_recorded_and_changes_nothing(self, site: Workspace, ledger: Ledger) -> None:
        say(site, "2", approval="rejected", approver="Dr Roy", reason="worse on children")
        [acted] = act(site, ledger)
        assert acted.outcome == "rejected"
        assert in_use(site) == b"base"
        assert ledger.last("reject").parameters == {"approver": "Dr Roy", "reason": "worse on children"}
        assert act(site, ledger) == []


class TestWhatStandsAgainst:
    @pytest.mark.parametrize(
        ("tags", "rules", "why"),
        [
            ({"approver": ""}, {}, "nobody is named"),
            ({"reason": " "}, {}, "no reason"),
            ({"approver": "Mallory"}, {"approvers": ("Dr Côté",)}, "not among those"),
            ({"approval": "yes"}, {}, "must be pending, approved or rejected"),
            ({"snapshot": "0" * 64}, {}, "tag `snapshot` .* not what the ledger recorded"),
            ({"decision": "0" * 64}, {}, "tag `decision`"),
            ({"gate": "passed!"}, {}, "changed after it was registered"),
        ],
    )
    def test_is_said_on_the_candidate(
        self, site: Workspace, ledger: Ledger, tags: dict[str, str], rules: dict, why: str
    ) -> None:
        approve(site, "1", **tags)
        [acted] = act(site, ledger, **rules)
        assert acted.outcome == "refused"
        assert in_use(site) == b"base"
        assert re.search(why, acted.why)
        assert registry.find(site, "1").tags["refused"] == acted.why
        assert ledger.last("reject").parameters["refused"] == acted.why
        assert act(site, ledger, **rules) == []

    def test_a_failed_gate_needs_an_override(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "3")
        [acted] = act(site, ledger)
        assert acted.outcome == "refused"
        assert "mean AUROC gain" in acted.why
        say(site, "3", override="only model that reads our new device")
        [acted] = act(site, ledger)
        assert (acted.outcome, acted.override) == ("promoted", "only model that reads our new device")
        assert in_use(site) == b"three"
        assert registry.champion(site).tags["override"] == "only model that reads our new device"
        first = registry.champion(site).card.splitlines()[0]
        assert first == f"{registry.AGAINST_THE_GATE} Dr Côté: only model that reads our new device"
        assert "refused" not in registry.find(site, "3").tags
        assert ledger.last("promote").parameters["gate"]["passed"] is False

    def test_the_gate_is_judged_by_the_rules_in_force(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "1")
        [acted] = act(site, ledger, min_test_studies=5000)
        assert acted.outcome == "refused"
        assert "held-out images" in acted.why

    def test_two_approved_at_once_wait_until_one_is_left(self, site: Workspace, ledger: Ledger) -> None:
        approve(site, "1")
        approve(site, "2")
        assert [acted.outcome for acted in act(site, ledger)] == ["refused", "refused"]
        assert in_use(site) == b"base"
        say(site, "1", approval="pending")
        say(site, "2", reason="better on effusions and devices")
        [acted] = act(site, ledger)
        assert (acted.candidate, acted.outcome) == ("2", "promoted")

    @pytest.mark.parametrize("name", ["metrics.json", "decision.json", "model.safetensors", "model_card.md"])
    def test_an_artefact_that_was_changed(self, site: Workspace, ledger: Ledger, name: str) -> None:
        run = registry.find(site, "1")
        for path in site.mlflow_artifacts.rglob(name):
            if run.run_id in path.as_posix() or (name == "model.safetensors" and path.read_bytes() == b"one"):
                path.write_bytes(path.read_bytes() + b" ")
        approve(site, "1")
        [acted] = act(site, ledger)
        assert acted.outcome == "refused"
        assert "changed after it was registered" in acted.why

    def test_a_candidate_that_the_ledger_does_not_know(self, site: Workspace, ledger: Ledger) -> None:
        with connection.client(site) as client:
            known = client.get_model_version("cxr-candidate", "1")
            client.create_model_version("cxr-candidate", known.source, run_id=known.run_id, tags=dict(known.tags))
        approve(site, "4")
        [acted] = act(site, ledger)
        assert "did not come out of this pipeline" in acted.why


class TestCommandLine:
    def test_promotes_and_goes_back(self, site: Workspace, ledger: Ledger) -> None:
        words = {"approver": "Dr Côté", "reason": "better", "settings": RULES}
        assert approval.promote(site, ledger, "1", **words).version.version == "2"
        assert approval.promote(site, ledger, "1", **words).new is False
        assert approval.promote(site, ledger, "2", **words).version.version == "3"
        assert in_use(site) == b"two"
        back = approval.roll_back(site, ledger, actor="Dr Roy", reason="misses pneumothorax")
        assert back.version.version == "2"
        assert in_use(site) == b"one"
        assert registry.find(site, "cxr@previous").version == "3"
        assert len(ledger.events(action="promote")) == 2
        assert ledger.last("rollback").inputs == {"cxr/3": back.previous.run_id}

    def test_puts_a_model_in_use_again_after_it_was_rolled_back(self, site: Workspace, ledger: Ledger) -> None:
        words = {"approver": "Dr Côté", "reason": "better", "settings": RULES}
        approval.promote(site, ledger, "1", **words)
        approval.roll_back(site, ledger, actor="Dr Roy", reason="by mistake")
        assert approval.promote(site, ledger, "1", **words).version.version == "2"
        assert in_use(site) == b"one"
        assert len(ledger.events(action="promote")) == 2

    def test_cannot_go_back_where_nothing_was_before(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(RegistryError, match="no previous model"):
            approval.roll_back(site, ledger, actor="Dr Roy", reason="why not")

    def test_raises_what_stands_against(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(PromotionRefused, match="gate did not pass"):
            approval.promote(site, ledger, "3", approver="Dr Côté", reason="hope", settings=RULES)

    def test_rejects(self, site: Workspace, ledger: Ledger) -> None:
        approval.reject(site, ledger, "1", approver="Dr Roy", reason="no")
        assert ledger.last("reject").parameters["reason"] == "no"


needs_auth = pytest.mark.skipif(
    find_spec("flask_wtf") is None, reason="mlflow's basic-auth needs flask-wtf, not installed"
)


@needs_auth
class TestWithBasicAuth:
    """On a real `mlflow server --app-name basic-auth`: who may write what is the server's to say."""

    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("server")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
            "admin_username = lead\nadmin_password = lead-password-1\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 600\n"
        )
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/kept"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        secrets = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for a test"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **quiet, **secrets}, stdout=log, stderr=log, start_new_session=True
            )
        url = f"http://127.0.0.1:{port}"
        try:
            self.wait(url, process, folder / "log")
            self.create_user(url, username="pipeline", password="pipeline-password-1")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(120)

    @staticmethod
    def wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        pytest.fail(log.read_text()[-2000:])

    @staticmethod
    def create_user(url: str, **values: str) -> None:
        head = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(b"lead:lead-password-1").decode(),
        }
        address = f"{url}/api/2.0/mlflow/users/create"
        urllib.request.urlopen(urllib.request.Request(address, json.dumps(values).encode(), head)).close()

    def test_the_pipeline_registers_candidates_and_cannot_put_them_in_use(
        self, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def log_in(name: str) -> None:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{name}-password-1")

        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        site = Workspace(tmp_path / "site")
        ledger = open_ledger(site)
        log_in("pipeline")
        with connection.client(site) as client:
            runs.experiment(client, site)  # its own: it may log there
        log_in("lead")
        registry.register_champion(site, write_checkpoint(site.root / "base", b"base"), "The base.")
        log_in("pipeline")
        made = register_candidate(site, ledger, b"one", gain=0.05)
        assert in_use(site) == b"base"
        approve(site, made.version)  # who owns the candidate can write on it, but not put it in use
        with pytest.raises(RegistryError, match="Permission denied"):
            act(site, ledger)
        assert in_use(site) == b"base"
        assert ledger.events(action="promote") == []
        log_in("lead")
        [acted] = act(site, ledger)
        assert acted.version == "cxr/2"
        log_in("pipeline")
        assert in_use(site) == b"one"
        with pytest.raises(RegistryError, match="Permission denied"):
            approval.roll_back(site, ledger, actor="pipeline", reason="no right to")
