"""What MLflow keeps of a retraining, and how the model in use is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from radia import registry
from radia.errors import RegistryError
from radia.registry import cards, connection, registering
from radia.workspace import Workspace

EVIDENCE = {"snapshot": "a" * 64, "checkpoint": "b" * 64, "metrics": "c" * 64, "dvc": "d" * 32, "gate": "passed"}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: once for all tests."""
    site = Workspace(tmp_path_factory.mktemp("mlflow"))
    assert registry.champion(site) is None
    return site.root / "mlflow.db"


@pytest.fixture
def site(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Workspace(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model.json").write_text("{}")
    return folder


class TestCardsOfALengthThatServersTake:
    """MLflow's PostgreSQL takes 5,000 letters, its SQLite any number."""

    def test_a_long_card_ends_at_a_line_and_says_where_the_rest_is(self, site: Workspace, checkpoint: Path) -> None:
        card = "# Model card\n" + "A line of it.\n" * 500
        log(site, checkpoint, card=card)
        shown = registry.candidates(site)[0].card
        assert len(shown) <= registry.CARD_LETTERS
        assert shown.endswith(f"A line of it.{registry.REST_OF_CARD}")
        assert registry.artefact(site, registry.candidates(site)[0], "model_card.md").decode() == card

    def test_a_short_card_stands_as_it_is(self) -> None:
        assert cards.shortened("# Model card") == "# Model card"

    def test_notes_find_room_and_the_oldest_give_way(self) -> None:
        card = cards.shortened("# Model card\n" + "A line of it.\n" * 500)
        noted = card
        for number in range(40):
            noted = cards.noted(noted, f"Patient {number} was withdrawn, and this model saw their images.")
        assert len(noted) <= registry.CARD_ROOM
        assert noted.partition(registry.NOTE)[0] == card
        assert "Patient 39 " in noted
        assert "Patient 0 " not in noted


def log(site: Workspace, checkpoint: Path, **changes: object) -> registry.Candidate:
    report = site.root / "evaluation"
    report.mkdir(exist_ok=True)
    (report / "metrics.json").write_text(json.dumps({"n": 3}))
    arguments = {
        "run_name": "retrain aaaa",
        "params": {"finetune.epochs": 4, "seed": 0},
        "metrics": {"candidate/auroc/mean all": 0.75},
        "artifacts": [report],
        "checkpoint": checkpoint,
        "tags": EVIDENCE,
        "card": "# Model card\n\nIntended use: none.",
        **changes,
    }
    return registry.log_candidate(site, **arguments)


class TestRegisterChampion:
    def test_puts_the_first_base_in_use(self, site: Workspace, checkpoint: Path) -> None:
        registered = registry.register_champion(site, checkpoint, "A first base.")
        used = registry.champion(site)
        assert used == registered
        assert (used.name, used.version, used.aliases, used.card) == ("cxr", "1", ("champion",), "A first base.")
        folder = registry.checkpoint_folder(site, registry.CHAMPION_URI)
        assert (folder / "model.safetensors").read_bytes() == b"weights"

    def test_registers_the_same_checkpoint_once(self, site: Workspace, checkpoint: Path) -> None:
        registry.register_champion(site, checkpoint, "A first base.")
        assert registry.register_champion(site, checkpoint, "Again.").version == "1"
        assert len(registry.versions(site, "cxr")) == 1

    def test_refuses_to_replace_the_model_in_use(self, site: Workspace, checkpoint: Path) -> None:
        registry.register_champion(site, checkpoint, "A first base.")
        (checkpoint / "model.safetensors").write_bytes(b"others")
        with pytest.raises(RegistryError, match="mlflow:cxr/1 is in use"):
            registry.register_champion(site, checkpoint, "A second.")


class TestLogCandidate:
    def test_registers_a_version_that_waits_for_approval(self, site: Workspace, checkpoint: Path) -> None:
        logged = log(site, checkpoint)
        [known] = registry.candidates(site)
        assert (known.name, known.version, known.uri) == ("cxr-candidate", logged.version, logged.uri)
        assert known.tags["approval"] == "pending"
        assert {name: known.tags[name] for name in EVIDENCE} == EVIDENCE
        assert known.tags["commit"]
        assert known.card.startswith("# Model card")
        assert known.aliases == ()

    def test_logs_params_metrics_files_and_the_dataset_on_the_run(self, site: Workspace, checkpoint: Path) -> None:
        logged = log(site, checkpoint)
        with connection.client(site) as client:
            run = client.get_run(logged.run_id)
            files = {entry.path for entry in client.list_artifacts(logged.run_id)}
        assert run.info.status == "FINISHED"
        assert run.data.params == {"finetune.epochs": "4", "seed": "0"}
        assert run.data.metrics == {"candidate/auroc/mean all": 0.75}
        assert files == {"evaluation", "model_card.md"}
        [dataset] = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("snapshot-aaaaaaaaaaaa", "d" * 32)

    def test_registers_the_same_evidence_once(self, site: Workspace, checkpoint: Path) -> None:
        first = log(site, checkpoint)
        again = log(site, checkpoint)
        assert (first.new, again.new) == (True, False)
        assert (again.version, again.run_id, again.record) == (first.version, first.run_id, first.record)
        assert len(registry.candidates(site)) == 1

    def test_registers_other_metrics_of_the_same_checkpoint_anew(self, site: Workspace, checkpoint: Path) -> None:
        log(site, checkpoint)
        assert log(site, checkpoint, tags={**EVIDENCE, "metrics": "e" * 64}).version == "2"
        assert [known.version for known in registry.candidates(site)] == ["2", "1"]

    def test_ends_the_run_of_a_call_that_was_killed(
        self, site: Workspace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object, **__: object) -> str:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(registering, "log_model", killed)
            with pytest.raises(KeyboardInterrupt):
                log(site, checkpoint)
        logged = log(site, checkpoint)
        with connection.client(site) as client:
            experiment = client.get_experiment_by_name("radia").experiment_id
            states = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
        assert states.pop(logged.run_id) == "FINISHED"
        assert list(states.values()) == ["KILLED"]
        assert logged.version == "1"

    def test_asks_for_the_digests_of_the_evidence(self, site: Workspace, checkpoint: Path) -> None:
        with pytest.raises(RegistryError, match="missing: checkpoint, metrics"):
            log(site, checkpoint, tags={"snapshot": "a" * 64})

    def test_takes_names_that_mlflow_refuses(self, site: Workspace, checkpoint: Path) -> None:
        logged = log(site, checkpoint, params={"a(b)": "x" * 9000}, metrics={"f1 (50%)": 0.5})
        with connection.client(site) as client:
            run = client.get_run(logged.run_id)
        assert len(run.data.params["a_b_"]) == 6000
        assert run.data.metrics == {"f1 _50__": 0.5}


class TestServedModel:
    def test_gives_the_checkpoint_s_probabilities(self, site: Workspace, tmp_path: Path) -> None:
        import mlflow

        from radia.model import build, describe, load_checkpoint, save_checkpoint
        from radia.predict import predict

        model = build("densenet-slim", seed=1)
        save_checkpoint(tmp_path / "slim", model, describe(model))
        images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
        logged = log(site, tmp_path / "slim", input_example=images)
        with connection.client(site):
            served = mlflow.pyfunc.load_model(f"models:/cxr-candidate/{logged.version}")
        expected = predict(load_checkpoint(tmp_path / "slim")[0], images).probabilities
        assert np.array_equal(served.predict(images), expected)
        assert served.metadata.signature.inputs.inputs[0].type == np.uint8
        assert served.input_example.shape == (1, 64, 64)


class TestCheckpointFolder:
    def test_finds_versions_and_aliases(self, site: Workspace, checkpoint: Path) -> None:
        registry.register_champion(site, checkpoint, "base")
        (checkpoint / "model.safetensors").write_bytes(b"tuned")
        logged = log(site, checkpoint)
        assert (registry.checkpoint_folder(site, "mlflow:cxr/1") / "model.safetensors").read_bytes() == b"weights"
        assert (registry.checkpoint_folder(site, logged.uri) / "model.safetensors").read_bytes() == b"tuned"

    def test_follows_a_data_folder_that_was_moved(self, site: Workspace, checkpoint: Path, tmp_path: Path) -> None:
        log(site, checkpoint)
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        for name in ("mlflow.db", "mlartifacts"):
            (tmp_path / name).rename(moved / name)
        folder = registry.checkpoint_folder(Workspace(moved), "mlflow:cxr-candidate/1")
        assert folder.is_relative_to(moved)
        assert (folder / "model.safetensors").read_bytes() == b"weights"

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("models:/cxr/1", "expected mlflow:<model>@<alias>"),
            ("mlflow:cxr", "names no model"),
            ("mlflow:cxr@champion", "no version of cxr is champion: there is none of that name"),
            ("mlflow:cxr-candidate/7", "no version of cxr-candidate is 7: it has 1"),
        ],
    )
    def test_says_what_there_is_instead(self, site: Workspace, checkpoint: Path, uri: str, message: str) -> None:
        log(site, checkpoint)
        with pytest.raises(RegistryError, match=message):
            registry.checkpoint_folder(site, uri)


def test_an_alias_that_stands_for_nothing_is_known_as_such(site: Workspace, checkpoint: Path) -> None:
    assert not registry.has(site, "mlflow:cxr@champion")
    registry.register_champion(site, checkpoint, "The base.")
    assert registry.has(site, "mlflow:cxr@champion")
    assert not registry.has(site, "mlflow:cxr@previous")


class TestRecordDigest:
    @pytest.fixture
    def logged(self, site: Workspace, checkpoint: Path) -> registry.Candidate:
        return log(site, checkpoint)

    def test_stays_when_people_decide_and_note(self, site: Workspace, logged: registry.Candidate) -> None:
        with connection.client(site) as client:
            client.set_model_version_tag("cxr-candidate", "1", "approval", "approved")
            client.set_model_version_tag("cxr-candidate", "1", "approver", "Dr Côté")
        registry.note_on_card(site, "cxr-candidate", "1", "A patient was withdrawn.")
        registry.note_on_card(site, "cxr-candidate", "1", "A patient was withdrawn.")
        assert registry.record_digest(site, "cxr-candidate", "1") == logged.record
        assert registry.find(site, "1").card.count("A patient was withdrawn.") == 1

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE latest_metrics SET value = 0.99",
            "UPDATE params SET value = '5' WHERE key = 'finetune.epochs'",
            "UPDATE tags SET value = 'passed!' WHERE key = 'gate'",
            "UPDATE model_version_tags SET value = 'passed!' WHERE key = 'gate'",
            "UPDATE model_versions SET description = '# Another card'",
            "UPDATE datasets SET digest = 'f'",
        ],
    )
    def test_changes_with_what_mlflow_keeps(self, site: Workspace, logged: registry.Candidate, statement: str) -> None:
        with sqlite3.connect(site.root / "mlflow.db") as database:
            assert database.execute(statement).rowcount > 0
        database.close()
        assert registry.record_digest(site, "cxr-candidate", "1") != logged.record

    @pytest.mark.parametrize(
        "name", ["metrics.json", "model_card.md", "model.safetensors", "MLmodel", "served_model.py"]
    )
    def test_changes_with_every_file(self, site: Workspace, logged: registry.Candidate, name: str) -> None:
        [path] = site.mlflow_artifacts.rglob(name)
        path.write_bytes(path.read_bytes() + b" ")
        assert registry.record_digest(site, "cxr-candidate", "1") != logged.record


class TestFlatMetrics:
    def test_keeps_values_by_finding_and_means_with_limits(self) -> None:
        figure = {"value": 0.8, "low": 0.7, "high": 0.9}
        evaluation = {
            "n": 40,
            "models": {
                "candidate": {
                    "findings": {"Edema": {"n": 40, "auroc": figure, "f1": {"value": None, "why": "one class"}}},
                    "means": {"all": {"auroc": figure}},
                }
            },
            "differences": {"means": {"all": {"auroc": {"value": 0.05, "low": None, "high": None}}}},
        }
        assert registry.flat_metrics(evaluation) == {
            "n": 40.0,
            "candidate/auroc/Edema": 0.8,
            "candidate/auroc/mean all": 0.8,
            "candidate/auroc/mean all low": 0.7,
            "candidate/auroc/mean all high": 0.9,
            "difference/auroc/mean all": 0.05,
        }


class TestErrors:
    def test_two_sites_in_one_process_do_not_see_each_other(
        self, site: Workspace, checkpoint: Path, tmp_path: Path, empty_database: Path
    ) -> None:
        registry.register_champion(site, checkpoint, "base")
        other = tmp_path / "other"
        other.mkdir()
        shutil.copy(empty_database, other / "mlflow.db")
        assert registry.champion(Workspace(other)) is None

    def test_a_server_that_is_not_there_is_named_as_such(
        self, site: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(RegistryError, match="MLflow refused"):
            registry.champion(site)
