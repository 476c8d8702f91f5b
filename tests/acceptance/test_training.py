"""A training as params.yaml asks for it: folds, balanced draws, epochs judged by reads, told to MLflow meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from radia import card, demo, registry, steps
from radia.errors import RegistryError, TrainingError
from radia.explain import explained
from radia.images import ImageStore
from radia.model import load_checkpoint, read_checkpoint
from radia.predict import predict
from radia.registry import connection, runs
from radia.steps import Run, open_run
from radia.steps.data import current_snapshot
from radia.steps.telling import Telling, told
from radia.steps.training import JUDGED_BY

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")


def with_settings(run: Run, **sections: dict[str, Any]) -> Run:
    changed = {name: getattr(run.settings, name).model_copy(update=values) for name, values in sections.items()}
    return replace(run, settings=run.settings.model_copy(update=changed))


@pytest.fixture(scope="module")
def run(site: EmbeddedSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A copy of the site in which the validation side was read, with two folds, two views and balanced draws."""
    data = tmp_path_factory.mktemp("training") / "data"
    shutil.copytree(site.data, data, symlinks=True)
    with working_in(data):
        asked = with_settings(
            open_run(),
            finetune={"folds": 2, "views": 2, "balanced": True, "epochs": 2},
            reads={"validation_share": 0.5, "evaluation_share": 0.2},
        )
        steps.queue_reads(asked, budget=40)
        demo.read_blind(asked, site.hospital, seed=0)
        yield asked


@pytest.fixture(scope="module")
def trained(run: Run) -> steps.Outcome:
    return steps.finetune(run)


class TestEnsemble:
    def test_two_networks_are_one_candidate_judged_by_the_reads(self, run: Run, trained: steps.Outcome) -> None:
        kept = read_checkpoint(run.workspace.models / "candidate")
        assert (kept.members, kept.views) == (2, 2)
        assert kept.training["folds"] == 2
        assert "blind reads" in kept.training["judged_by"]
        assert (run.workspace.models / JUDGED_BY).is_file()
        assert "judge" in trained.inputs
        assert steps.finetune(run).reused

    def test_it_is_evaluated_explained_and_registered_as_one_version(self, run: Run, trained: steps.Outcome) -> None:
        steps.evaluate(run)
        steps.gate(run)
        done = steps.register(run)
        version = registry.find(run.workspace, f"cxr-candidate/{done.summary['version']}")
        model, _ = load_checkpoint(registry.checkpoint_folder(run.workspace, version.uri))
        images = ImageStore(run.workspace.images).read(list(current_snapshot(run).images["image"][:3]))
        seen = explained(model, images)
        assert np.allclose(seen.probabilities, predict(model, images).probabilities, atol=1e-5)
        assert seen.maps.shape[:2] == (3, 14)
        text = registry.artefact(run.workspace, version, "model_card.md").decode()
        for said in ("- folds: `2`", "- views: `2`", "- networks: `2`", "blind reads of"):
            assert said in text
        assert (run.workspace.evaluation / JUDGED_BY).is_file()

    def test_without_reads_of_the_validation_side_the_given_labels_judge(self, site: EmbeddedSite) -> None:
        kept = read_checkpoint(site.data / "models" / "candidate")
        assert kept.training["judged_by"] == "given labels"
        assert "given labels" in str(card.training_of(kept)["judged_by"])


class TestBalancedDraws:
    def test_the_site_and_the_patient_that_have_most_images_are_drawn_no_more_often(
        self, run: Run, trained: steps.Outcome, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[Any, Any]] = []

        def noted(rows: Any, size: int, seed: int, epoch: int, chances: Any) -> Any:
            asked.append((rows, chances))
            raise TrainingError("seen")

        monkeypatch.setattr("radia.fit.loop.epoch_batches", noted)
        again = with_settings(run, finetune={"folds": 1, "views": 1, "epochs": 1})
        with pytest.raises(TrainingError, match="seen"):
            steps.finetune(again, tell=False)
        (rows, chances), images = asked[0], current_snapshot(run).images
        assert set(images["split"].iloc[rows]) == {"train"}
        drawn = images.iloc[rows].assign(chance=chances)
        assert drawn["site"].value_counts(normalize=True).max() > 0.52  # one site has more images
        by_site = drawn.groupby("site")["chance"].sum()
        assert by_site.to_numpy() == pytest.approx(by_site.mean())
        for _, part in drawn.groupby("site"):
            assert part["patient"].value_counts().max() > 1  # one patient has more images
            by_patient = part.groupby("patient")["chance"].sum()
            assert by_patient.to_numpy() == pytest.approx(by_patient.mean())


class TestMlflow:
    def test_the_candidates_run_holds_the_curves_and_what_was_said_of_some_images(
        self, run: Run, trained: steps.Outcome
    ) -> None:
        known = told(run.workspace)
        assert known is not None
        names = {name for name, _, _ in known.metrics}
        assert {"training/network 1/loss", "training/network 2/validation AUROC", "training/validation AUROC"} <= names
        with connection.client(run.workspace) as client:
            found = client.get_metric_history(known.run_id, "training/network 1/loss")
            assert [entry.step for entry in found] == [1, 2]
            files = {entry.path for entry in client.list_artifacts(known.run_id, "training")}
            assert client.get_run(known.run_id).info.status == "FINISHED"
        assert files == {"training/examples.png", "training/learning_curves.png"}

    def test_while_it_cannot_be_reached_training_goes_on_and_registration_tells_it_all(
        self, run: Run, trained: steps.Outcome, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def away(*_: object, **__: object) -> None:
            raise RegistryError("MLflow refused: connection refused")

        copy = replace(run, workspace=type(run.workspace)(run.workspace.root.parent / "elsewhere"))
        copy.workspace.models.mkdir(parents=True)
        entry = {"epoch": 1, "loss": 0.5, "validation_auroc": 0.7, "auroc": {"Edema": 0.7}}
        with monkeypatch.context() as patched:
            patched.setattr(registry, "open_training", away)
            telling = Telling(copy, "retrain", "key", examples=lambda *_: b"png")
            telling.epoch(entry, np.zeros((1, 14), np.float32))
            telling.end([entry])
        assert caplog.text.count("goes on without MLflow") == 2  # at the start and at the end
        known = told(copy.workspace)
        assert known is not None
        assert (known.run_id, known.files["examples.png"]) == ("", b"png")
        with connection.client(run.workspace) as client:
            run_of = runs.run_of(client, run.workspace, known, "retrain", {"snapshot": "s", "checkpoint": "c"})
            assert run_of.data.metrics["training/loss"] == 0.5
            assert run_of.data.tags["checkpoint"] == "c"

    def test_the_same_training_has_one_run_and_each_figure_once(self, run: Run, trained: steps.Outcome) -> None:
        first = registry.open_training(run.workspace, "retrain", "a key")
        said = registry.Training(first, (("training/loss", 0.5, 1), ("training/loss", 0.4, 2)), {})
        registry.tell_training(run.workspace, said)
        assert registry.open_training(run.workspace, "retrain", "a key") == first
        registry.tell_training(run.workspace, said, ended="FINISHED")
        with connection.client(run.workspace) as client:
            assert len(client.get_metric_history(first, "training/loss")) == 2
            client.set_tag(first, "checkpoint", "of a registered candidate")
        assert registry.open_training(run.workspace, "retrain", "a key") != first


def test_what_is_kept_of_a_training_is_all_that_a_table_of_it_needs(run: Run, trained: steps.Outcome) -> None:
    history = json.loads((run.workspace.models / "training" / "history.json").read_text())["history"]
    table = pd.DataFrame(history)
    assert table["fold"].isna().sum() == 1
    assert len(table) == 2 * 3 + 1
