"""Every command of the pages of docs/ is run, in the order of a page, on an embedded hospital that ran the job.

Blocks marked `sh` are run; those marked `console` need a server, a second machine or a person, and are run elsewhere.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from radia import steps
from radia.cli import main
from radia.manifest import load
from radia.steps import open_run
from radia.workspace import Workspace

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```sh" in page.read_text()]
PROGRAMS = {"make", ".", "export", "dagster", "dvc", "docker", "curl", "python", "psql"}
"""What else may stand in a block: installing, surroundings, and programs that tests of their own call."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_does_its_work(page: Path, site: EmbeddedSite, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(site.data, data, symlinks=True)
    meant = meanings(site, data, tmp_path)
    with working_in(data):
        steps.queue_reads(open_run(), budget=12)
        for line in lines(page):
            words = [meant(word) for word in shlex.split(line, comments=True)]
            if words[0] != "radia":
                assert words[0] in PROGRAMS, line
                continue
            if words[1] == "promote":
                words += ["--override", "this hospital is too small to pass the gate"]
            done = CliRunner().invoke(main, words[1:])
            assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


def lines(page: Path) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#")


def meanings(site: EmbeddedSite, data: Path, scratch: Path) -> Callable[[str], str]:
    """What a page's word stands for here: the demonstration's folders, /tmp, and ids in capitals."""
    row = load(Workspace(data).manifest).iloc[0]
    ids = {"IMAGE": row["image"], "PATIENT": row["patient"], "STUDY": row["study"], "BATCH": row["batch"]}
    folders = {"data/demo/hospital": site.hospital, "data/demo": data, "/tmp": scratch}

    def meant(word: str) -> str:
        for folder, place in folders.items():
            if word == folder or word.startswith(f"{folder}/"):
                return f"{place}{word.removeprefix(folder)}"
        return str(ids.get(word, word))

    return meant
