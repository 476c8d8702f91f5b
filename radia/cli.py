"""The command `radia`: reads options, calls a step or a stand-alone function, prints. Nothing is computed here.

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
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radia import __version__
from radia.errors import RadiaError, StorageFull
from radia.settings import key_from_environment, load_settings, quiet_dependencies, workspace

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


def prints(function: Callable[..., Any]) -> Callable[..., None]:
    """Gives a command --json. The command returns a JSON-able value, or (value, text for people)."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        result = function(*args, **options)
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
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # a copy of the terminal: Dagster takes standard error for its logs while a step runs
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    with terminal, Progress(*columns, console=Console(file=terminal)) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks or bars.tasks[tasks[step]].finished:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

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


# --- the main job ---------------------------------------------------------------------------------------------------


def _orchestrator() -> Callable[..., dict[str, Any]]:
    """The Dagster job as a function, found through its entry point: this package never imports Dagster."""
    found = entry_points(group="radia.orchestrator", name="retrain")
    if not found:
        raise RadiaError("the package `pipelines` is not installed: run `make setup` in a checkout of RADIA")
    return next(iter(found)).load()  # type: ignore[no-any-return]


@main.command()
@click.option("-n", "--studies", default=600, show_default=True, help="Studies of the embedded hospital.")
@click.option("--seed", default=0, show_default=True)
@prints
def demo(studies: int, seed: int) -> tuple[object, str]:
    """The whole main job on the embedded hospital, offline. Its data lies in $RADIA_DATA, or data/demo."""
    from radia import demo as embedded

    with progress_bars() as progress:
        result = embedded.run(_orchestrator(), studies=studies, seed=seed, progress=progress)
    return result, embedded.told(result)


@main.command()
@click.option("--inbox", required=True, type=ANY_PATH, help="A folder tree INBOX/<site>/… of DICOM files.")
@click.option("--labels", type=EXISTING_FILE, help="CSV: AccessionNumber and findings (1, 0, -1 or blank).")
@click.option("--reports", type=EXISTING_FILE, help="CSV: AccessionNumber, Report.")
@params_option
@prints
def run(inbox: Path, labels: Path | None, reports: Path | None, params: Path | None) -> tuple[object, str]:
    """The whole main job on real input, ending with a registered candidate that waits for approval."""
    from radia import summary

    with progress_bars() as progress:
        _orchestrator()(inbox=inbox, labels=labels, reports=reports, params=params, progress=progress)
    with opened(params) as site:
        result = summary.run_summary(site)
        return result, summary.told(result, site.workspace)


# --- one step each --------------------------------------------------------------------------------------------------


@main.command()
@click.option("--inbox", type=ANY_PATH, help="A folder tree INBOX/<site>/… (default: inbox/ in the data folder).")
@click.option("--labels", type=EXISTING_FILE, help="CSV of labels by AccessionNumber.")
@click.option("--reports", type=EXISTING_FILE, help="CSV of reports by AccessionNumber.")
@params_option
@prints
def intake(inbox: Path | None, labels: Path | None, reports: Path | None, params: Path | None) -> tuple[object, str]:
    """Take new files into landing batches."""
    from radia import steps

    with opened(params) as site:
        return told(steps.intake(site, inbox or site.workspace.root / "inbox", labels=labels, reports=reports))


@main.command()
@click.argument("source", required=False, type=EXISTING_FOLDER)
@click.argument("target", required=False, type=ANY_PATH)
@click.option("--key", type=ANY_PATH, help="File of the pseudonymisation key (mode 0600; made by --new-key).")
@click.option("--new-key", is_flag=True, help="Make the key file where it does not exist.")
@params_option
@prints
def deidentify(
    source: Path | None, target: Path | None, key: Path | None, new_key: bool, params: Path | None
) -> tuple[object, str]:
    """De-identify a tree of DICOM from SOURCE to TARGET; without arguments, every landing batch."""
    from radia import steps

    if source is None:
        with opened(params) as site:
            return told(steps.deidentify(site))
    if target is None:
        raise click.UsageError("give SOURCE and TARGET, or neither")
    from radia.dicom.deidentify import deidentify_tree
    from radia.dicom.pseudonyms import load_key

    if key is None and key_from_environment() is None:
        raise click.UsageError("give --key FILE, or the key in RADIA_KEY")
    secret = load_key(key or Path(), create=new_key)
    with progress_bars() as progress:
        outcomes = deidentify_tree(
            source,
            target,
            key=secret,
            settings=load_settings(params).deidentify,
            progress=lambda done, total: progress("deidentify", done, total),
        )
    counts = {outcome: int(count) for outcome, count in outcomes["outcome"].value_counts().items()}
    reasons = outcomes.loc[outcomes["outcome"] == "refused", "reason"].value_counts()
    result = {"files": len(outcomes), **counts, "reasons": {str(why): int(count) for why, count in reasons.items()}}
    lines = [f"{counts.get('clean', 0)} clean, {counts.get('refused', 0)} refused of {len(outcomes)} files"]
    lines += [f"  {count} × {why}" for why, count in reasons.items()]
    return result, "\n".join(lines)


def _step_command(name: str, function: str, text: str) -> None:
    @main.command(name, help=text)
    @params_option
    @prints
    def command(params: Path | None) -> tuple[object, str]:
        from radia import steps

        with opened(params) as site:
            return told(getattr(steps, function)(site))


_step_command("images", "images", "Turn clean DICOM into shards of pixels and the manifest.")
_step_command("snapshot", "snapshot", "Freeze manifest, labels, reads and split, versioned with DVC.")
_step_command("base", "base_model", "Put the checkpoint of the model in use at models/base.")
_step_command("finetune", "finetune", "Fine-tune the model in use on the snapshot.")
_step_command("gate", "gate", "Judge the candidate's evaluation by the gate's rules.")
_step_command("register", "register", "Register the candidate in MLflow; a person approves.")


@main.command()
@params_option
@prints
def check(params: Path | None) -> tuple[object, str]:
    """Check manifest and labels against the rules of data quality."""
    from radia import steps
    from radia.errors import QualityBlocked

    with opened(params) as site:
        outcome = steps.check(site)
    if outcome.summary["blocking"]:
        raise QualityBlocked(f"critical rules failed: {', '.join(outcome.summary['failed'])}")
    return told(outcome)


@main.group()
def labels() -> None:
    """Given labels, from tables or reports."""


@labels.command("from-reports")
@click.argument("reports", type=EXISTING_FILE)
@click.argument("target", type=ANY_PATH)
@prints
def from_reports(reports: Path, target: Path) -> tuple[object, str]:
    """Label the reports of a CSV (id,text or AccessionNumber,Report) with the 14 observations."""
    from radia.reports import label_reports, read_report_table
    from radia.workspace import written_whole

    table = label_reports(read_report_table(reports))
    with written_whole(target) as partial:
        table.to_csv(partial, index=False)
    return {"reports": len(table)}, f"{len(table)} reports labelled: {target}"


@labels.command("link")
@params_option
@prints
def link(params: Path | None) -> tuple[object, str]:
    """Join the landing zone's tables of labels and reports to the studies."""
    from radia import steps

    with opened(params) as site:
        return told(steps.labels(site))


@main.command()
@click.option("--labels", "label_file", type=EXISTING_FILE, help="CSV: id and given labels.")
@click.option("--probs", type=EXISTING_FILE, help="CSV: id and probabilities.")
@click.option("--reads", type=EXISTING_FILE, help="CSV: id and true labels of a few.")
@click.option("--out", type=ANY_PATH, help="CSV to write.")
@click.option("--scores", is_flag=True, help="The probabilities are only ranks: any finite number will do.")
@click.option("--seed", default=0, show_default=True)
@params_option
@prints
def suspects(
    label_file: Path | None,
    probs: Path | None,
    reads: Path | None,
    out: Path | None,
    scores: bool,
    seed: int,
    params: Path | None,
) -> tuple[object, str]:
    """Rank given labels, most suspect first: of the files given, or of the snapshot in use."""
    if label_file is None and probs is None:
        from radia import steps

        with opened(params) as site:
            return told(steps.suspects(site))
    if label_file is None or probs is None or out is None:
        raise click.UsageError("give --labels, --probs and --out together, or none of them")
    from radia.suspects import suspects_of_files

    table = suspects_of_files(label_file, probs, reads=reads, ranks_only=scores, seed=seed)
    from radia.workspace import written_whole

    with written_whole(out) as partial:
        table.to_csv(partial, index=False)
    return {"labels": len(table), "out": str(out)}, f"{len(table)} labels ranked: {out}"


@main.command()
@click.option("--truth", type=EXISTING_FILE, help="CSV: id and true labels.")
@click.option("--noisy", type=EXISTING_FILE, help="CSV: id and noisy labels (with --reads).")
@click.option("--reads", type=EXISTING_FILE, help="CSV: id, true labels of a few, sampling_probability.")
@click.option("--probs", type=EXISTING_FILE, help="CSV: id and probabilities.")
@click.option("--thresholds", type=EXISTING_FILE, help="CSV: finding,threshold.")
@click.option("--decisions", type=EXISTING_FILE, help="CSV: id and decisions (0 or 1).")
@click.option("--patients", type=EXISTING_FILE, help="CSV: id and patient, for intervals by patient.")
@click.option("--readers", type=EXISTING_FOLDER, help="A folder of CSVs, one a human reader: id and decisions.")
@click.option("--seed", default=0, show_default=True)
@params_option
@prints
def evaluate(
    truth: Path | None,
    noisy: Path | None,
    reads: Path | None,
    probs: Path | None,
    thresholds: Path | None,
    decisions: Path | None,
    patients: Path | None,
    readers: Path | None,
    seed: int,
    params: Path | None,
) -> object:
    """Metrics with 95% intervals: of files, or of the candidate beside the model in use."""
    if truth is None and noisy is None and probs is None:
        from radia import steps

        with opened(params) as site:
            return told(steps.evaluate(site))
    if probs is not None and truth is not None and noisy is None:
        from radia.evaluate import evaluate_files

        return evaluate_files(
            truth=truth,
            probs=probs,
            thresholds=thresholds,
            decisions=decisions,
            patients=patients,
            readers=readers,
            seed=seed,
        )
    if probs is not None and noisy is not None and reads is not None and truth is None:
        from radia.estimate import estimate_files

        return estimate_files(noisy=noisy, reads=reads, probs=probs, thresholds=thresholds, seed=seed)
    raise click.UsageError("give --probs with either --truth, or --noisy and --reads")


@main.command()
@click.argument("out", type=ANY_PATH)
@click.option("-n", "--studies", default=600, show_default=True)
@click.option("--seed", default=0, show_default=True)
@prints
def synthetic(out: Path, studies: int, seed: int) -> tuple[object, str]:
    """Write the embedded hospital: DICOM full of invented identifiers, reports, given and true labels."""
    from radia.synthetic.hospital import write_hospital

    with progress_bars() as progress:
        write_hospital(out, studies=studies, seed=seed, progress=lambda done, total: progress("synthetic", done, total))
    return {"studies": studies, "out": str(out)}, f"{studies} studies: {out}/inbox, labels.csv, reports.csv, truth.json"


@main.group()
def reads() -> None:
    """Blind re-reads."""


@reads.command("choose")
@click.option("--labels", "label_file", type=EXISTING_FILE, required=True, help="CSV: id and given labels.")
@click.option("--probs", type=EXISTING_FILE, required=True, help="CSV: id and probabilities.")
@click.option("--budget", type=click.IntRange(min=1), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=ANY_PATH, required=True)
@prints
def choose(label_file: Path, probs: Path, budget: int, seed: int, out: Path) -> tuple[object, str]:
    """Which ids to re-read so that the estimates become precise, with their sampling probabilities."""
    from radia.reads import choose_of_files
    from radia.workspace import written_whole

    chosen = choose_of_files(label_file, probs, budget=budget, seed=seed)
    with written_whole(out) as partial:
        chosen.to_csv(partial, index=False)
    return {"chosen": len(chosen), "out": str(out)}, f"{len(chosen)} to read: {out}"


# --- lineage --------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("kind", type=click.Choice(["model", "image", "patient"]))
@click.argument("identifier")
@click.option("--html", type=ANY_PATH, help="Write a page instead.")
@prints
def trace(kind: str, identifier: str, html: Path | None) -> tuple[object, str]:
    """Where a model, an image or a patient came from, and where it went."""
    from radia import steps
    from radia import trace as lineage
    from radia.workspace import written_whole

    with opened() as site:
        tree = steps.trace(site, kind, identifier)
    if html is None:
        return lineage.to_json(tree), lineage.render_text(tree)
    with written_whole(html) as partial:
        partial.write_text(lineage.to_html(tree))
    return {"html": str(html)}, f"written: {html}"


@main.group()
def audit() -> None:
    """Proof that nothing was changed."""


@audit.command()
@click.argument("bundle", required=False, type=EXISTING_FILE)
@prints
def verify(bundle: Path | None) -> tuple[object, str]:
    """Re-check the ledger's chain and every recorded digest; or a bundle of evidence."""
    from radia import steps

    if bundle is not None:
        from radia.bundle import verify_bundle

        verify_bundle(bundle)
        return {"bundle": str(bundle), "whole": True}, f"{bundle}: nothing was changed"
    with opened() as site:
        checked = steps.verify(site)
    text = (
        f"{checked.events} events, {checked.artefacts} files, {checked.objects} DVC objects and {checked.models} "
        "models: nothing was changed"
    )
    return checked.as_json(), text


@audit.command("bundle")
@click.argument("model")
@click.argument("target", type=ANY_PATH)
@prints
def audit_bundle(model: str, target: Path) -> tuple[object, str]:
    """Write the evidence behind MODEL, to be checked elsewhere with nothing but Python."""
    from radia import steps

    with opened() as site:
        written = steps.bundle(site, model, target)
    return {"bundle": str(written)}, f"written: {written}"


@main.command()
@click.argument("patient")
@click.option("--reason", default="", help="Why; stays in the record.")
@prints
def withdraw(patient: str, reason: str) -> tuple[object, str]:
    """Take a patient out of every later snapshot; lists the models that saw them."""
    from radia import steps

    with opened() as site:
        done = steps.withdraw(site, patient, reason=reason)
    models = ", ".join(done.models) or "none"
    text = f"{done.patient}: {done.images} images stay out of later snapshots; models that saw them: {models}"
    return {"patient": done.patient, "images": done.images, "models": list(done.models)}, text


# --- a person's word ------------------------------------------------------------------------------------------------

approver_option = click.option("--approver", required=True, help="The person who decides.")
reason_option = click.option("--reason", required=True, help="Why; stays in the record.")


@main.command()
@click.argument("version")
@approver_option
@reason_option
@click.option("--override", default="", help="Why it is approved although the gate did not pass.")
@prints
def promote(version: str, approver: str, reason: str, override: str) -> tuple[object, str]:
    """Put candidate VERSION in use on a person's word."""
    from radia import steps

    with opened() as site:
        done = steps.promote(site, version, approver=approver, reason=reason, override=override)
    before = done.previous.uri if done.previous else None
    return {"in use": done.version.uri, "previous": before}, f"{done.version.uri} is in use"


@main.command()
@click.argument("version")
@approver_option
@reason_option
@prints
def reject(version: str, approver: str, reason: str) -> tuple[object, str]:
    """Refuse candidate VERSION."""
    from radia import steps

    with opened() as site:
        done = steps.reject(site, version, approver=approver, reason=reason)
    return {"candidate": done.candidate, "outcome": done.outcome}, f"{done.candidate}: {done.outcome}"


@main.command()
@reason_option
@prints
def rollback(reason: str) -> tuple[object, str]:
    """Put the previous model in use again."""
    from radia import steps

    with opened() as site:
        done = steps.roll_back(site, reason=reason)
    return {"in use": done.version.uri}, f"{done.version.uri} is in use again"


# --- services -------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--port", default=8000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def web(port: int, host: str) -> None:
    """Serve the web demo of the model in use."""
    from radia.web import serve

    serve(workspace(), host=host, port=port)


@main.command()
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--web-port", default=8000, show_default=True)
def up(dagster_port: int, mlflow_port: int, web_port: int) -> None:
    """Dagster, MLflow and the web app on this machine, until Ctrl-C."""
    from radia.services import serve_all

    serve_all(workspace(), dagster_port=dagster_port, mlflow_port=mlflow_port, web_port=web_port)
