"""One small embedded hospital that went through the whole job, shared by the tests that look at what it left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from radia.settings import Settings, quiet_dependencies

quiet_dependencies()

PARAMS = {
    "images": {"side": 64},
    "quality": {"max_refused_fraction": 0.5},
    "stand_in": {"images": 160, "side": 64, "epochs": 1},
    "finetune": {"epochs": 1, "learning_rate": 1e-3, "precision": "32-true", "threads": 1},
    "evaluate": {"replicates": 200},
    "suspects": {"folds": 3},
}


@dataclass(frozen=True)
class EmbeddedSite:
    """Where the hospital's feed lies and where the job worked."""

    hospital: Path
    data: Path


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from radia.synthetic.hospital import write_hospital

    folder = tmp_path_factory.mktemp("hospital")
    write_hospital(folder, studies=90, seed=3)
    return folder


@pytest.fixture(scope="session")
def site(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSite]:
    """The job has run once on the hospital, with label tables."""
    data = tmp_path_factory.mktemp("site")
    prepare(data)
    with working_in(data):
        from pipelines.run import retrain

        retrain(inbox=hospital / "inbox", labels=hospital / "labels.csv")
        yield EmbeddedSite(hospital, data)


def prepare(data: Path) -> None:
    settings = Settings.model_validate(PARAMS).model_dump(mode="json")
    (data / "params.yaml").write_text(yaml.safe_dump(settings))


class working_in:  # noqa: N801
    """`RADIA_DATA` set to a folder."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def __enter__(self) -> None:
        self._before = os.environ.get("RADIA_DATA")
        os.environ["RADIA_DATA"] = str(self._data)

    def __exit__(self, *_error: object) -> None:
        if self._before is None:
            del os.environ["RADIA_DATA"]
        else:
            os.environ["RADIA_DATA"] = self._before


def copied(site: EmbeddedSite, target: Path, *names: str) -> Path:
    """A copy of some of a site's folders."""
    for name in names:
        source = site.data / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
    return target
