"""From files as they come to snapshots: intake, de-identification, images, labels, quality, snapshots."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from radia.cli.frame import (
    ANY_PATH,
    EXISTING_FILE,
    EXISTING_FOLDER,
    main,
    opened,
    params_option,
    prints,
    progress_bars,
    step_command,
    told,
    write_csv,
)
from radia.settings import key_from_environment, load_settings

DAY = click.DateTime(formats=["%Y-%m-%d"])


@main.group(invoke_without_command=True)
@click.option("--inbox", type=ANY_PATH, help="A folder tree INBOX/<site>/… (default: inbox/ in the data folder).")
@click.option("--labels", type=EXISTING_FILE, help="CSV of labels by AccessionNumber.")
@click.option("--reports", type=EXISTING_FILE, help="CSV of reports by AccessionNumber.")
@params_option
@prints
@click.pass_context
def intake(
    context: click.Context, inbox: Path | None, labels: Path | None, reports: Path | None, params: Path | None
) -> tuple[object, str] | None:
    """Take new files into landing batches: from a folder, or as the commands below say."""
    from radia import steps

    if context.invoked_subcommand is not None:
        return None
    with opened(params) as site:
        return told(steps.intake(site, inbox or site.workspace.root / "inbox", labels=labels, reports=reports))


@intake.command("pacs")
@click.option("--site", help="Ask this site's PACS only.")
@click.option("--from", "since", type=DAY, help="First day of the studies, as 2026-01-31 (default: the day before).")
@click.option("--to", "until", type=DAY, help="Last day of the studies (default: today).")
@params_option
@prints
def intake_pacs(
    site: str | None, since: datetime | None, until: datetime | None, params: Path | None
) -> tuple[object, str]:
    """Ask the PACS of intake.pacs (params.yaml) over DICOMweb. What is there already is not fetched again."""
    from radia import steps

    first, last = (day.date() if day else None for day in (since, until))
    with opened(params) as run:
        outcomes = steps.fetch(run, site=site, since=first, until=last)
    value, text = told(outcomes)
    return value, text or "nothing new"


@intake.command("receive")
@params_option
@prints
def intake_receive(params: Path | None) -> tuple[object, str]:
    """Listen to senders (C-STORE, settings in intake.receiver of params.yaml) until Ctrl-C or SIGTERM."""
    import signal
    from threading import Event

    from radia import steps

    stop = Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    with opened(params) as run:
        host = run.settings.intake.receiver.host
        count = steps.receive(
            run,
            stop,
            listening=lambda port: click.echo(f"listening on {host}:{port}; Ctrl-C ends it", err=True),
            told=lambda outcome: click.echo(told(outcome)[1], err=True),
        )
    return {"batches": count}, f"{count} batches received"


@main.command()
@click.argument("source", required=False, type=EXISTING_FOLDER)
@click.argument("target", required=False, type=ANY_PATH)
@click.option("--key", type=ANY_PATH, help="File of the pseudonymisation key (mode 0600; made by --new-key).")
@click.option("--new-key", is_flag=True, help="Make the key file where it does not exist.")
@click.option("--crosswalk", type=ANY_PATH, help="Keep the encrypted way back in this file (for `radia reidentify`).")
@params_option
@prints
def deidentify(
    source: Path | None,
    target: Path | None,
    key: Path | None,
    new_key: bool,
    crosswalk: Path | None,
    params: Path | None,
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
    settings = load_settings(params)
    with progress_bars() as progress:
        outcomes = deidentify_tree(
            source,
            target,
            key=secret,
            settings=settings.deidentify,
            progress=lambda done, total: progress("deidentify", done, total),
            crosswalk=crosswalk,
            scale=settings.scale,
        )
    counts = {outcome: int(count) for outcome, count in outcomes["outcome"].value_counts().items()}
    reasons = outcomes.loc[outcomes["outcome"] == "refused", "reason"].value_counts()
    result = {"files": len(outcomes), **counts, "reasons": {str(why): int(count) for why, count in reasons.items()}}
    lines = [f"{counts.get('clean', 0)} clean, {counts.get('refused', 0)} refused of {len(outcomes)} files"]
    lines += [f"  {count} × {why}" for why, count in reasons.items()]
    return result, "\n".join(lines)


step_command("images", "images", "Turn clean DICOM into shards of pixels and the manifest.")
step_command("snapshot", "snapshot", "Freeze manifest, labels, reads and split, versioned with DVC.")


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

    table = label_reports(read_report_table(reports))
    write_csv(table, target)
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
