"""What the evaluation and the monitoring of a site look at beside its held-out patients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radia import snapshot, steps
from radia.manifest import load
from radia.settings import MonitorSettings
from radia.steps import Run, open_run

from .conftest import EmbeddedSite, copied, working_in

pytestmark = pytest.mark.xdist_group("main-job")

NEEDED = ("params.yaml", "manifest", "archive", "labels", "quality", "models", "keys", "ledger.db", "mlflow.db")


@pytest.fixture
def run(site: EmbeddedSite, tmp_path: Path) -> Iterator[Run]:
    """A run in a copy of the site, in which batches of a dozen images are compared."""
    copied(site, tmp_path, *NEEDED, "mlartifacts", "snapshot.json")
    with working_in(tmp_path):
        opened = open_run()
        small = opened.settings.model_copy(update={"monitor": MonitorSettings(min_images=8, permutations=99)})
        yield replace(opened, settings=small)


def test_a_batch_of_which_the_reference_knows_nothing_is_compared_with_what_came_before(run: Run) -> None:
    site, manifest = run.workspace, load(run.workspace.manifest)
    first, second = sorted(manifest["batch"].unique())
    given = pd.read_parquet(site.labels / "given.parquet")
    earlier = manifest[manifest["batch"] == first]
    frozen = snapshot.freeze(earlier, given, settings=run.settings.snapshot, folder=site.snapshots)
    run.ledger.append("snapshot", actor="test", outputs={"snapshot": frozen.digest, "dvc": "0" * 32})
    watch = steps.monitor(run)
    assert watch.model == "cxr/1"
    assert [one.summary["batch"] for one in watch.batches] == [second]
    found = json.loads((site.monitoring / second / "shift.json").read_text())
    place = second.rsplit("-", 2)[0]
    assert found[place]["new_site"] is True
    assert found[place]["n"] == (manifest["batch"] == second).sum()
    assert (site.monitoring / second / "shift.png").read_bytes().startswith(b"\x89PNG")
    images = next(trigger for trigger in watch.proposal["triggers"] if trigger["name"] == "new images")
    assert images["observed"] == str(found[place]["n"])
    assert run.ledger.last("monitor").outputs[second]
    assert steps.monitor(run).batches[0].reused


def test_without_a_batch_after_the_snapshot_nothing_is_compared(run: Run) -> None:
    watch = steps.monitor(run)
    assert watch.batches == []
    assert watch.shifted == []


def test_heat_maps_are_held_against_the_boxes_of_held_out_images(run: Run, site: EmbeddedSite) -> None:
    found = steps.explain(run, str(run.workspace.models / "candidate"), regions=str(site.hospital / "truth.json"))
    held_out = (steps.current_snapshot(run).images["split"] == "test").sum()
    assert 0 < found["images"] <= held_out
    assert found["mean"]["over"] == len(found["findings"])


def test_a_set_from_elsewhere_is_judged_and_stands_on_the_page(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "nih"
    folder.mkdir()
    rows = [f"{k}.png,{'Effusion' if k % 3 else 'No Finding'},{k}" for k in range(24)]
    (folder / "Data_Entry_2017.csv").write_text("\n".join(["Image Index,Finding Labels,Patient ID", *rows]))
    (folder / "test_list.txt").write_text("\n".join(f"{k}.png" for k in range(24)))
    (folder / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n1.png,Effusion,0,0,512,512\n"
    )
    (folder / "images").mkdir()
    for k, film in enumerate(np.random.default_rng(0).integers(0, 256, (24, 80, 80), dtype=np.uint8)):
        Image.fromarray(film).save(folder / "images" / f"{k}.png")
    steps.evaluate(run, external={"NIH's test list": f"nih:{folder}"})
    result = json.loads((run.workspace.evaluation / "metrics.json").read_text())
    judged = result["external"]["NIH's test list"]
    assert judged["n"] == 24
    assert judged["heat_maps"]["candidate"]["findings"]["Pleural Effusion"]["n"] == 1
    assert result["open_critical_checks"] == 0
    page = (run.workspace.evaluation / "report.html").read_text()
    assert "Elsewhere: NIH&#x27;s test list" in page
    assert (run.workspace.evaluation / "figures" / "nih-s-test-list-roc.png").is_file()
    assert "not trained on a snapshot of this archive" in page
