"""The loop of blind reading on a small embedded hospital: asked for, read by two, decided, estimated, told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia import demo, steps, summary
from radia.errors import LabelError, UnmatchedIds
from radia.findings import FINDINGS
from radia.steps import Run, open_run
from radia.steps.reads import read_log, read_queue

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")


@pytest.fixture(scope="module")
def run(site: EmbeddedSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A copy of the site with a queue of 30 that two people and an adjudicator have read."""
    data = tmp_path_factory.mktemp("read-site") / "data"
    shutil.copytree(site.data, data, symlinks=True)
    with working_in(data):
        yield open_run()


@pytest.fixture(scope="module")
def queued(run: Run) -> pd.DataFrame:
    steps.queue_reads(run, budget=30)
    return read_queue(run.workspace)


@pytest.fixture(scope="module")
def read(run: Run, site: EmbeddedSite, queued: pd.DataFrame) -> Run:
    demo.read_blind(run, site.hospital, seed=0)
    return run


class TestQueue:
    def test_evaluation_is_asked_of_the_test_side_and_cleaning_of_the_rest(
        self, run: Run, queued: pd.DataFrame
    ) -> None:
        images = steps.current_snapshot(run).images
        side = images.drop_duplicates("study").set_index("study")["split"]
        assert set(side[queued.loc[queued["queue"] == "evaluation", "id"]]) == {"test"}
        assert "test" not in set(side[queued.loc[queued["queue"] == "cleaning", "id"]])

    def test_a_run_asks_for_nothing_while_its_settings_do_not(self, run: Run, queued: pd.DataFrame) -> None:
        assert steps.queue_reads(run).reused
        assert read_queue(run.workspace).equals(queued)

    def test_a_sheet_shows_pseudonyms_pictures_and_nothing_else(
        self, run: Run, queued: pd.DataFrame, tmp_path: Path
    ) -> None:
        steps.export_reads(run, tmp_path / "sheet.csv", reader="Dr Roy")
        sheet = pd.read_csv(tmp_path / "sheet.csv")
        assert list(sheet.columns) == ["study", "image", *FINDINGS]
        assert sheet[list(FINDINGS)].isna().all(axis=None)
        assert set(sheet["study"]) == set(queued["id"])
        assert all((run.workspace.root / path).is_file() for path in sheet["image"])
        event = run.ledger.last("exported")
        assert event is not None
        assert event.parameters["reader"] == "Dr Roy"


class TestReads:
    def test_a_filled_sheet_comes_into_the_record_under_its_readers_name(
        self, run: Run, read: Run, tmp_path: Path
    ) -> None:
        before = len(read_log(run.workspace))  # type: ignore[arg-type]
        study = read_queue(run.workspace)["id"].iloc[0]
        pd.DataFrame({"study": [study], "image": ["x"], "Edema": [1]}).to_csv(tmp_path / "s.csv", index=False)
        done = steps.import_reads(run, tmp_path / "s.csv", reader="Dr Roy", model_visible=True)
        assert done["new"] == 1
        assert done["reads"] == before + 1
        event = run.ledger.last("read")
        assert event is not None
        assert event.parameters["reader"] == "Dr Roy"
        assert event.parameters["model_visible"] is True
        assert event.subjects == (study,)
        again = steps.import_reads(run, tmp_path / "s.csv", reader="Dr Roy", model_visible=True)
        assert again["new"] == 0
        assert run.ledger.last("read") == event

    def test_a_study_nobody_asked_about_is_refused_and_nothing_is_taken(
        self, run: Run, read: Run, tmp_path: Path
    ) -> None:
        before = read_log(run.workspace)
        pd.DataFrame({"study": ["S" * 17], "Edema": [1]}).to_csv(tmp_path / "s.csv", index=False)
        with pytest.raises(UnmatchedIds):
            steps.import_reads(run, tmp_path / "s.csv", reader="Dr Roy")
        assert read_log(run.workspace).equals(before)  # type: ignore[union-attr]

    def test_all_that_was_asked_for_is_settled(self, run: Run, read: Run) -> None:
        states = steps.reads_status(run)
        assert states["waiting"] == 0
        assert set(states["states"]["evaluation"]) == {"settled"}
        assert {"simulated reader A (reader)", "simulated reader A (again)"} <= set(states["readers"])
        assert json.loads(json.dumps(states, allow_nan=False))

    def test_nothing_waits_for_a_reader_any_more(self, run: Run, read: Run, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="nothing waits"):
            steps.export_reads(run, tmp_path / "sheet.csv", reader="Dr Tremblay")


@pytest.fixture(scope="module")
def estimated(read: Run) -> Run:
    for step in (steps.snapshot, steps.suspects, steps.finetune, steps.evaluate, steps.noise, steps.gate):
        step(read)
    return read


class TestEstimates:
    def test_the_snapshot_takes_corrections_of_the_training_side_alone(
        self, site: EmbeddedSite, estimated: Run
    ) -> None:
        with working_in(site.data):
            before = steps.current_snapshot(open_run()).labels.set_index("study")
        frozen = steps.current_snapshot(estimated)
        after, images = frozen.labels.set_index("study"), frozen.images
        decided = pd.read_parquet(estimated.workspace.reads / "reads.parquet").set_index("study")
        test = set(images.loc[images["split"] == "test", "study"])
        pd.testing.assert_frame_equal(after.loc[sorted(test)], before.loc[sorted(test)])
        outside = [study for study in decided.index if study not in test]
        known = decided.loc[outside, list(FINDINGS)]
        np.testing.assert_array_equal(
            after.loc[outside, list(FINDINGS)].where(known.notna()).to_numpy(), known.to_numpy()
        )
        assert len(outside) > 5

    def test_the_suspects_know_the_labels_as_they_were_given(self, estimated: Run) -> None:
        ranked = pd.read_parquet(estimated.workspace.suspects / "suspects.parquet")
        given = pd.read_parquet(estimated.workspace.labels / "given.parquet").set_index("study")
        told = ranked.set_index(["id", "finding"])["given"]
        for study, finding in told.index[:50]:
            assert told[study, finding] == np.nan_to_num(given.at[study, finding], nan=0.0)
        assert (ranked["evidence"] == "read again").any()

    def test_the_metrics_hold_three_ways_and_the_gate_counts_the_reads(self, estimated: Run) -> None:
        metrics = json.loads((estimated.workspace.evaluation / "metrics.json").read_text())
        queue = read_queue(estimated.workspace)
        assert metrics["gold_reads"] == int((queue["queue"] == "evaluation").sum())
        assert metrics["estimates"]["read"] == metrics["gold_reads"]
        assert metrics["estimates"]["simulated"] is True
        assert {"base", "candidate", "comparison"} <= set(metrics["estimates"])
        decision = json.loads((estimated.workspace.evaluation / "decision.json").read_text())
        observed = {rule["name"]: rule["observed"] for rule in decision["rules"]}
        assert observed["gold reads"] == str(metrics["gold_reads"])

    def test_the_pages_say_that_readers_are_simulated(self, estimated: Run) -> None:
        for name in ("report.html", "noise.html"):
            page = (estimated.workspace.evaluation / name).read_text()
            assert "The readers are simulated" in page
        assert summary.noise_rows(estimated)

    def test_nothing_that_was_recorded_has_changed(self, estimated: Run) -> None:
        assert steps.verify(estimated).events > 0

    def test_doing_it_again_changes_nothing(self, estimated: Run) -> None:
        for step in (steps.snapshot, steps.suspects, steps.finetune, steps.evaluate, steps.noise):
            assert step(estimated).reused
