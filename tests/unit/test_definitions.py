"""What Dagster loads, held against tests/spec/definitions.json.

After a change on purpose: `python -m tests.unit.test_definitions` writes the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.definitions import definitions

SNAPSHOT = Path(__file__).resolve().parents[1] / "spec" / "definitions.json"


def described() -> dict[str, Any]:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assets = {
        key.to_user_string(): {
            "group": graph.get(key).group_name,
            "owners": sorted(graph.get(key).owners),
            "kinds": sorted(graph.get(key).kinds),
            "after": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "described": bool(graph.get(key).description),
            "partitions": getattr(graph.get(key).partitions_def, "name", None),
            "executable": graph.get(key).is_executable,
            "pools": sorted(graph.get(key).pools or ()),
            "blocking checks": sorted(check.name for check in graph.get(key).check_keys if graph.get(check).blocking),
        }
        for key in sorted(graph.get_all_asset_keys())
    }
    return {
        "assets": assets,
        "jobs": {
            job.name: type(job.partitions_def).__name__ if job.partitions_def else None
            for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)
            if not job.name.startswith("__")
        },
        "schedules": {item.name: item.default_status.value for item in repository.schedule_defs},
        "sensors": {item.name: item.default_status.value for item in repository.sensor_defs},
        "resources": sorted(repository.get_top_level_resources()),
    }


def test_the_definitions_are_those_of_the_snapshot() -> None:
    assert described() == json.loads(SNAPSHOT.read_text())


def test_every_asset_has_an_owner_a_kind_and_a_description() -> None:
    for name, asset in described()["assets"].items():
        assert asset["owners"], name
        assert asset["kinds"], name
        assert asset["described"], name


def test_the_job_holds_every_asset_that_can_be_made() -> None:
    job = definitions.resolve_job_def("retrain")
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert made == {name for name, asset in described()["assets"].items() if asset["executable"]}


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(), indent=1, sort_keys=True) + "\n")
