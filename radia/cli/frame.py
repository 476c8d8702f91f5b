"""What every command shares: the group `radia`, JSON or text, progress bars, a run in the site's data folder.

Exit status 0 on success, 1 on a failure of the work, 2 on wrong usage. With --json one JSON object and nothing else
goes to standard output; progress and messages go to standard error.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radia import __version__
from radia.errors import RadiaError, StorageFull
from radia.settings import log_lines, open_secrets, quiet_dependencies

if TYPE_CHECKING:
    from radia.steps import Outcome, Run

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)


class Commands(click.Group):
    """Errors of the tree end a command with one line and status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; says what went wrong in one line."""
        try:
            return super().invoke(ctx)
        except RadiaError as error:
            click.echo(f"radia: {error}", err=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            click.echo(f"radia: {StorageFull('no room left on the disk: free some and run again')}", err=True)
        ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Retrain a CheXpert chest X-ray model on a hospital's own data, and make the result trustworthy.

    A site's data lies in $RADIA_DATA (data/ where it is not set).
    """
    quiet_dependencies()
    open_secrets()
    if log_lines():
        from radia.operations.logs import write_lines

        write_lines("radia")


def prints(function: Callable[..., Any]) -> Callable[..., None]:
    """Gives a command --json. The command returns a JSON-able value, or (value, text for people)."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        result = function(*args, **options)
        if result is None:  # a group, of which a command follows
            return
        value, text = result if isinstance(result, tuple) else (result, None)
        if as_json or text is None:
            click.echo(json.dumps(value, indent=None if as_json else 2, ensure_ascii=False, default=str))
        else:
            click.echo(text)

    return command


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        yield lambda _step, _done, _total: None
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # a copy of the terminal: Dagster takes standard error for its logs while a step runs
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    with terminal, Progress(*columns, console=Console(file=terminal)) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks or bars.tasks[tasks[step]].finished:
                tasks[step] = bars.add_task(step, total=total, rate="")
            speed = bars.tasks[tasks[step]].speed
            bars.update(tasks[step], completed=done, total=total, rate=f"{speed:,.1f}/s" if speed else "")

        yield show


@contextmanager
def opened(params: Path | None = None) -> Iterator[Run]:
    """A run in the site's data folder, its progress drawn on a terminal."""
    from radia.steps import open_run

    with progress_bars() as progress:
        yield open_run(params=params, progress=progress)


def told(outcomes: Outcome | list[Outcome]) -> tuple[object, str]:
    """Outcomes for a machine and for a person."""
    listed = outcomes if isinstance(outcomes, list) else [outcomes]
    value = [
        {"step": item.step, "reused": item.reused, "outputs": item.outputs, "summary": item.summary} for item in listed
    ]
    lines = []
    for item in listed:
        facts = ", ".join(f"{name} {_short(fact)}" for name, fact in item.summary.items())
        lines.append(f"{item.step}: {facts}" + (" (unchanged)" if item.reused else ""))
    return (value[0] if isinstance(outcomes, list) is False else {"outcomes": value}), "\n".join(lines)


def _short(fact: object) -> str:
    return f"{fact:.4f}" if isinstance(fact, float) else str(fact)


params_option = click.option("--params", type=EXISTING_FILE, help="Settings to use instead of params.yaml.")


def step_command(name: str, function: str, text: str) -> None:
    """A command that runs one step of `radia.steps` on the site's data."""

    @main.command(name, help=text)
    @params_option
    @prints
    def command(params: Path | None) -> tuple[object, str]:
        from radia import steps

        with opened(params) as site:
            return told(getattr(steps, function)(site))
