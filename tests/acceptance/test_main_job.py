"""The whole way on a small embedded hospital: what the job leaves behind, and that doing it again changes nothing."""

from __future__ import annotations

import html
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest

from radia import digests, registry, steps, summary, trace
from radia.errors import ChainBroken
from radia.steps import open_run, recorded
from radia.trace.archive import Archive

from .conftest import EmbeddedSite, copied, prepare, working_in
from .identifiers import identifiers_found

pytestmark = pytest.mark.xdist_group("main-job")

ROOT = Path(__file__).resolve().parents[2]
RADIA = (sys.executable, "-m", "radia")


def digests_of(data: Path) -> dict[str, str]:
    """What two runs on the same input must agree on."""
    with working_in(data):
        run = open_run()
        return {
            "snapshot": recorded(run.workspace, "snapshot")[0].outputs["snapshot"],
            "suspects": recorded(run.workspace, "suspects")[0].outputs["suspects"],
            "checkpoint": recorded(run.workspace, "finetune")[0].outputs["checkpoint"],
            "metrics": recorded(run.workspace, "evaluate")[0].outputs["metrics"],
        }


def test_it_ends_with_a_registered_candidate_that_waits_for_approval(site: EmbeddedSite) -> None:
    run = open_run()
    (candidate,) = registry.candidates(run.workspace)
    assert candidate.version == "1"
    assert candidate.tags["approval"] == "pending"
    assert candidate.tags["snapshot"] == steps.current_snapshot(run).digest
    assert {"commit", "dagster_run_id", "dvc"} <= set(candidate.tags)


def test_every_planted_unusable_file_is_in_quarantine_with_its_reason(site: EmbeddedSite) -> None:
    planted = json.loads((site.hospital / "truth.json").read_text())["unusable"]
    refused = {
        sha256: reason
        for path in (site.data / "quarantine").rglob("reasons.json")
        for sha256, reason in json.loads(path.read_text()).items()
    }
    for name, why in planted.items():
        if why == "the same bytes as another file":  # one file with two names: nothing is lost or doubled
            continue
        digest = digests.of_file(site.hospital / name)
        assert refused[digest].startswith(why.split(" with ")[0].replace("already there", "already")), name
        assert len(list((site.data / "quarantine").rglob(digest))) == 1


def test_running_it_again_changes_and_recomputes_nothing(site: EmbeddedSite) -> None:
    from pipelines.run import retrain

    before, head = digests_of(site.data), open_run().ledger.head()
    retrain(inbox=site.hospital / "inbox", labels=site.hospital / "labels.csv")
    assert digests_of(site.data) == before
    assert open_run().ledger.head() == head
    assert len(registry.candidates(open_run().workspace)) == 1


def test_a_run_killed_anywhere_and_run_again_ends_in_the_same_digests(site: EmbeddedSite, tmp_path: Path) -> None:
    prepare(tmp_path)
    copied(site, tmp_path, "keys")
    command = [*RADIA, "run", "--inbox", str(site.hospital / "inbox"), "--labels", str(site.hospital / "labels.csv")]
    environment = {**os.environ, "RADIA_DATA": str(tmp_path)}
    moments = random.Random(5)
    for _ in range(4):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(6, 26))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests_of(tmp_path) == digests_of(site.data)
    with working_in(tmp_path):
        assert steps.verify(open_run()).events > 0
        assert len(registry.candidates(open_run().workspace)) == 1


@pytest.mark.parametrize("checkout", [False, True], ids=["plain folder", "git checkout"])
def test_dvc_repro_gives_the_digests_of_the_dagster_run(site: EmbeddedSite, tmp_path: Path, checkout: bool) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "params.yaml").write_bytes((site.data / "params.yaml").read_bytes())
    copied(site, tmp_path / "data", "clean", "labels", "models/base")
    environment = {**os.environ, "RADIA_DATA": "data", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def shell(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    if checkout:
        shell("git", "init", "--quiet")
        shell(sys.executable, "-m", "dvc", "init", "--quiet")
    else:
        shell(sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm")
    shell(sys.executable, "-m", "dvc", "repro")
    assert digests_of(tmp_path / "data") == digests_of(site.data)


def test_the_snapshot_digest_stands_on_the_mlflow_run_the_materialization_and_the_ledger(site: EmbeddedSite) -> None:
    import dagster as dg

    from radia.services import dagster_home

    run = open_run()
    digest = steps.current_snapshot(run).digest
    assert registry.candidates(run.workspace)[0].tags["snapshot"] == digest
    assert run.ledger.last("snapshot", term=digest) is not None
    with dg.DagsterInstance.from_config(str(dagster_home(run.workspace))) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("snapshot"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["digest/snapshot"].value == digest


def test_dagster_links_the_page_of_data_quality_which_names_every_rule_and_no_patient(site: EmbeddedSite) -> None:
    import dagster as dg

    from radia.services import dagster_home

    run = open_run()
    with dg.DagsterInstance.from_config(str(dagster_home(run.workspace))) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("quality"))
    assert event is not None
    assert event.asset_materialization is not None
    link = str(event.asset_materialization.metadata["data docs"].value)
    page = Path(unquote(urlparse(link).path)).read_text(encoding="utf-8")
    assert link.startswith("file://")
    report = json.loads((run.workspace.quality / "report.json").read_text())
    said = [result["description"] for result in report["results"]]
    assert len(said) > 60
    assert [words for words in said if html.escape(words) not in page] == []
    manifest = pd.concat(map(pd.read_parquet, run.workspace.manifest.glob("*.parquet")))
    assert not [name for name in (*manifest["image"], *manifest["patient"]) if name in page]


def test_each_batch_is_a_partition_of_dagster(site: EmbeddedSite) -> None:
    import dagster as dg

    from radia.services import dagster_home

    run = open_run()
    with dg.DagsterInstance.from_config(str(dagster_home(run.workspace))) as instance:
        known = set(instance.get_dynamic_partitions("batches"))
        shown = instance.get_materialized_partitions(dg.AssetKey("batch"))
    assert known == shown == set(steps.batches(run.workspace))


def test_a_model_is_traced_to_its_images_and_an_image_to_the_model(site: EmbeddedSite) -> None:
    run = open_run()
    images = steps.current_snapshot(run).images
    forward = json.dumps(trace.to_json(steps.trace(run, "model", "1")))
    image = images.iloc[0]
    assert image["image"] in forward
    assert image["source_sha256"] in forward
    assert steps.current_snapshot(run).digest in forward
    back = trace.render_text(steps.trace(run, "image", image["image"]))
    assert image["source_sha256"][:12] in back
    assert "cxr-candidate" in back
    assert "de-identification" in back
    assert "image quality" in back


def test_of_every_image_of_a_model_is_told_how_it_was_cleaned_what_ails_it_and_whence_its_labels_are(
    site: EmbeddedSite,
) -> None:
    rows = Archive(open_run().workspace).snapshot_rows(steps.current_snapshot(open_run()).digest)
    assert rows["deidentified"].str.startswith("basic").all()
    assert rows["boxes"].ge(0).all()
    assert set(" ".join(rows["defects"]).split()) <= {"blank", "inverted", "turned", "cropped", "lateral", "text"}
    assert set(rows["label_origin"]) == {"given"}


def test_the_audit_finds_a_changed_artefact(site: EmbeddedSite, tmp_path: Path) -> None:
    run = open_run()
    assert steps.verify(run).artefacts > 0
    metrics = run.workspace.evaluation / "metrics.json"
    before = metrics.read_bytes()
    metrics.write_bytes(before + b" ")
    try:
        with pytest.raises(ChainBroken, match=r"metrics\.json"):
            steps.verify(run)
    finally:
        metrics.write_bytes(before)
    steps.verify(run)


def test_no_identifier_leaves_the_landing_zone(site: EmbeddedSite) -> None:
    planted = json.loads((site.hospital / "planted.json").read_text())
    names = ("last", "mrn", "ramq", "phone", "address", "accession", "study_uid", "series_uid", "sop_uid", "serial")
    tokens = {file[name] for file in planted.values() for name in names if len(file[name]) >= 6}
    assert len(tokens) > 100
    assert identifiers_found(site.data, tokens) == {}


def test_a_patient_is_on_one_side_of_the_split(site: EmbeddedSite) -> None:
    images = steps.current_snapshot(open_run()).images
    assert (images.groupby("patient")["split"].nunique() == 1).all()
    assert set(images["split"]) == {"train", "validation", "test"}


def test_the_summary_says_in_words_what_a_person_wants_to_know(site: EmbeddedSite) -> None:
    run = open_run()
    text = summary.told(summary.run_summary(run), run.workspace)
    assert "cxr-candidate version 1 waits for approval" in text
    assert "stand-in" in text
    assert "radia up" in text


def test_predictions_are_kept_for_every_held_out_image(site: EmbeddedSite) -> None:
    run = open_run()
    kept = pd.read_parquet(run.workspace.evaluation / "predictions.parquet")
    images = steps.current_snapshot(run).images
    assert set(kept["image"]) == set(images.loc[images["split"] == "test", "image"])
