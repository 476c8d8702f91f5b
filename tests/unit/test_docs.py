"""The README and the pages of docs/ say only what is there: commands, options, files, and the data folder's table."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = r"`(radia [a-z][^`]*)`"


def commands(page: Path) -> set[str]:
    """The radia commands that a page shows: in its blocks and in its sentences."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    shown = [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
    return {line.partition(" #")[0].strip() for line in shown if line.startswith("radia ")} | set(
        re.findall(INLINE, text)
    )


MENTIONED = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("said", MENTIONED)
def test_every_command_that_a_page_names_exists_with_its_options(said: str) -> None:
    words = re.split(r"[\s=]+", said.split("|")[0].split("&&")[0])[1:]
    command: click.Command = main
    while isinstance(command, click.Group) and words and re.fullmatch("[a-z-]+", words[0]) and words[0][0] != "-":
        assert words[0] in command.commands, said
        command = command.commands[words.pop(0)]
    assert command is not main
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {
        "--help",
        "--json",
    }
    asked = {word.strip("[],;.") for word in words if word.lstrip("[").startswith("--")}
    assert asked <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_every_page_can_be_found_from_the_readme() -> None:
    found, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        found.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)", page.read_text())
        ahead += {(page.parent / link).resolve() for link in links if not link.startswith("http")} - found
    assert set(PAGES) <= found


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
