"""Files on a Ray cluster of two nodes: the same bytes as on this machine, and a dead worker costs one item."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from radia.dicom.deidentify import deidentify_tree
from radia.images import add_batch, read_index
from radia.settings import DeidentifySettings, ScaleSettings
from radia.synthetic.hospital import write_hospital
from radia.workers import each

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'radia[ray]'")

BATCH = "A-20261123-1"
HERE = ScaleSettings(workers=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ScaleSettings]:
    """Two nodes of one core each on this machine."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    with pytest.MonkeyPatch.context() as during:
        during.setenv("RAY_USAGE_STATS_ENABLED", "0")
        during.setenv("RAY_memory_monitor_refresh_ms", "0")  # the test's nodes share the machine with other tests
        patient = {"health_check_initial_delay_ms": 60_000, "health_check_timeout_ms": 60_000}
        head = {**small, "include_dashboard": False, "_system_config": patient}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(**small)
        yield ScaleSettings(backend="ray", ray_address=nodes.address)
        nodes.shutdown()


PLACES = ("local", "cluster")


def contents(folder: Path, *, without: str) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(without))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_clean_files_and_images_have_the_digests_of_a_local_run(cluster: ScaleSettings, tmp_path: Path) -> None:
    write_hospital(tmp_path / "hospital", studies=10, seed=3, workers=1)
    source = tmp_path / "hospital" / "inbox"
    (source / "bad.dcm").write_bytes(b"no image")
    settings = DeidentifySettings(clean_pixels=False)
    for name, scale in (("local", HERE), ("cluster", cluster)):
        clean = tmp_path / name / "clean"
        deidentify_tree(source, clean, key=bytes(range(32)), settings=settings, scale=scale)
        add_batch(clean, tmp_path / name / "images", batch=BATCH, side=96, shard_bytes=10**6, scale=scale)
    reasons = [list(pd.read_parquet(tmp_path / name / "clean" / "outcomes.parquet")["reason"]) for name in PLACES]
    assert reasons[0] == reasons[1]
    local, spread = (contents(tmp_path / name, without=".catalogue") for name in PLACES)
    assert len(read_index(tmp_path / "cluster" / "images", BATCH).dropna(subset="shard")) >= 6
    assert spread == local


def test_both_nodes_work_and_a_worker_that_dies_costs_one_item(cluster: ScaleSettings, tmp_path: Path) -> None:
    def node_or_death(number: int) -> str:
        import time

        import ray

        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        node = str(ray.get_runtime_context().get_node_id())
        (tmp_path / node).touch()
        deadline = time.monotonic() + 120
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)  # one node alone does not get on
        return node

    found = list(each(node_or_death, range(10), if_lost=lambda number: f"lost {number}", scale=cluster))
    assert found.index("lost 3") == 3
    assert len(set(found)) == 3


def test_an_exception_comes_as_it_was_raised(cluster: ScaleSettings) -> None:
    def refuse(number: int) -> int:
        raise KeyError("seven")

    with pytest.raises(KeyError, match="seven"):
        list(each(refuse, [1, 2], if_lost=int, scale=cluster))
