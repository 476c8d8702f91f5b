"""The README and the page of roles say only what is there: its commands, its files and the data folder's table."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
import yaml

from radia.cli import main
from radia.settings import Settings
from radia.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
ROLES = (ROOT / "docs" / "roles.md").read_text()
COMMAND = r"\bradia ((?:[a-z]+(?:-[a-z]+)* ?)+)"
MENTIONED = sorted({tuple(words.split()) for words in re.findall(COMMAND, README) + re.findall(f"`{COMMAND}", ROLES)})


@pytest.mark.parametrize("words", MENTIONED, ids=" ".join)
def test_every_command_of_the_readme_exists(words: tuple[str, ...]) -> None:
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        assert word in command.commands, f"radia {' '.join(words)}"
        command = command.commands[word]
    assert command is not main


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_linked_files_exist() -> None:
    for folder, page in ((ROOT, README), (ROOT / "docs", ROLES)):
        for link in re.findall(r"\]\(([^)#]+)\)", page):
            assert link.startswith("http") or (folder / link).exists(), link


def test_the_parameters_file_says_the_defaults() -> None:
    assert Settings.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())) == Settings()


def test_the_data_folder_page_names_every_folder_that_is_written() -> None:
    page = (ROOT / "data" / "README.md").read_text()
    site = Workspace(Path("data"))
    assert [field.name for field in fields(site)] == ["root"]
    properties = [name for name, value in vars(Workspace).items() if isinstance(value, property)]
    paths = [getattr(site, name) for name in properties]
    folders = {path.relative_to("data").parts[0] for path in paths if isinstance(path, Path)}
    missing = {folder for folder in folders if not re.search(rf"`{re.escape(folder)}/?[`a-z]*", page)}
    assert missing == set()
