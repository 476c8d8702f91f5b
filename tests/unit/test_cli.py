"""The command: help everywhere, one JSON object, and the statuses 0, 1 and 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from radia.cli import main


def commands(group: click.Group = main, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_says_what_it_does(command: tuple[str, ...], runner: CliRunner) -> None:
    result = runner.invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    first = result.output.splitlines()[2].strip()
    assert first.endswith(".") or len(first) > 20


def test_wrong_usage_ends_with_status_2(runner: CliRunner) -> None:
    assert runner.invoke(main, ["evaluate", "--seed", "x"]).exit_code == 2
    assert runner.invoke(main, ["nonsense"]).exit_code == 2
    assert runner.invoke(main, ["deidentify", "."]).exit_code == 2


def test_a_failure_of_the_work_ends_with_status_1_and_one_line(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = runner.invoke(main, ["intake", "--inbox", "empty"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("radia: empty holds no file")
    assert len(result.stderr.strip().splitlines()) == 1


def test_json_is_one_object_and_nothing_else(runner: CliRunner, tmp_path: Path) -> None:
    Path("truth.csv").write_text("id,Edema\n" + "\n".join(f"s{k},{k % 2}" for k in range(40)))
    Path("probs.csv").write_text("id,Edema\n" + "\n".join(f"s{k},{0.2 + 0.01 * k}" for k in range(40)))
    result = runner.invoke(main, ["evaluate", "--truth", "truth.csv", "--probs", "probs.csv", "--json"])
    assert result.exit_code == 0, result.stderr
    parsed = json.loads(result.stdout)
    assert parsed["n"] == 40
    assert parsed["findings"]["Edema"]["auroc"]["low"] < parsed["findings"]["Edema"]["auroc"]["high"]


def test_an_unknown_parameter_is_an_error_and_not_a_default(runner: CliRunner, tmp_path: Path) -> None:
    Path("params.yaml").write_text("imagse: {side: 64}\n")
    result = runner.invoke(main, ["images"])
    assert result.exit_code == 1
    assert "imagse" in result.stderr


def test_a_step_that_lacks_the_one_before_says_what_to_run(runner: CliRunner) -> None:
    result = runner.invoke(main, ["suspects"])
    assert result.exit_code == 1
    assert "radia snapshot" in result.stderr
