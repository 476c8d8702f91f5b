"""From files as they come to snapshots: intake, de-identification, images, labels, quality, snapshots."""

from __future__ import annotations

from dataclasses import replace
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
@click.option("--host", help="Listen on this address instead of the settings'.")
@click.option("--port", type=int, help="Listen on this port instead of the settings'.")
@params_option
@prints
def intake_receive(host: str | None, port: int | None, params: Path | None) -> tuple[object, str]:
    """Listen to senders (C-STORE, settings in intake.receiver of params.yaml) until Ctrl-C or SIGTERM."""
    import signal
    from threading import Event

    from radia import steps

    stop = Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    with opened(params) as run:
        run = replace(run, settings=run.settings.listening_on(host, port))
        listens = run.settings.intake.receiver.host
        count = steps.receive(
            run,
            stop,
            listening=lambda port: click.echo(f"listening on {listens}:{port}; Ctrl-C ends it", err=True),
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


@main.command()
@click.option("--repair", is_flag=True, help="Check every shard; make damaged ones again from the clean files.")
@params_option
@prints
def images(repair: bool, params: Path | None) -> tuple[object, str]:
    """Turn clean DICOM into shards of pixels and the manifest."""
    from radia import steps

    with opened(params) as site:
        if not repair:
            return told(steps.images(site))
        made = steps.repair_images(site)
    return {"repaired": made}, f"made again: {', '.join(made)}" if made else "every shard is whole"


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
@click.option("--evidence", type=ANY_PATH, help="CSV of what gave each label: offsets, section, cues; no word.")
@prints
def from_reports(reports: Path, target: Path, evidence: Path | None) -> tuple[object, str]:
    """Label the reports of a CSV (id,text or AccessionNumber,Report) with the 14 observations."""
    from radia.reports import label_with_evidence, read_report_table, rules_digest
    from radia.tables import write_table

    labelled = label_with_evidence(read_report_table(reports))
    write_table(labelled.labels, target)
    if evidence is not None:
        write_table(labelled.evidence, evidence)
    count = len(labelled.labels)
    lines = [f"{count} reports labelled: {target}"]
    lines += [f"  {number} without any label: {reason}" for reason, number in labelled.abstained.items()]
    return {"reports": count, "abstained": labelled.abstained, "rules": rules_digest()}, "\n".join(lines)


def _bar(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """`kappa=0.8` for every finding (under ''), `Edema:f1=0.7` for one."""
    bars: dict[str, dict[str, float]] = {}
    for text in texts:
        finding, _, rule = text.rpartition(":")
        metric, _, value = rule.partition("=")
        try:
            bars.setdefault(finding.strip(), {})[metric.strip()] = float(value)
        except ValueError as error:
            raise click.BadParameter(f"{text}: expected kappa=0.8, f1=0.9 or 'Edema:kappa=0.7'") from error
    return bars


@labels.command("agree")
@click.argument("first", type=EXISTING_FILE)
@click.argument("second", type=EXISTING_FILE)
@click.option("--bar", "bars", multiple=True, callback=_bar, help="kappa=0.8, f1=0.9 or 'Edema:kappa=0.7'; repeatable.")
@click.option(
    "--blank",
    type=click.Choice(["absent", "unread"]),
    default="absent",
    show_default=True,
    help="What a blank cell says: the finding is not there, or nobody looked.",
)
@click.option("--out", type=ANY_PATH, help="JSON of the result, which labels.agreement of params.yaml can name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def agree(
    first: Path, second: Path, bars: dict[str, dict[str, float]], blank: str, out: Path | None, as_json: bool
) -> None:
    """Compare two tables of labels (id and findings): kappa and F1 per finding. Status 1 where one is under its bar."""
    import json

    from radia.errors import QualityBlocked
    from radia.label_agreement import agreement_of_files, told_agreement
    from radia.workspace import written_whole

    overall = bars.pop("", {})
    result = agreement_of_files(first, second, bars=overall, bars_by_finding=bars, unread=blank == "unread")
    if out is not None:
        with written_whole(out) as partial:
            partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else told_agreement(result))
    if result["under_bar"]:
        raise QualityBlocked(f"under the bar: {', '.join(result['under_bar'])}")


@labels.command("probabilities")
@click.argument("given", type=EXISTING_FILE)
@click.argument("reads", type=EXISTING_FILE)
@click.option("--out", type=ANY_PATH, help="JSON of the result, which labels.probabilities of params.yaml can name.")
@prints
def probabilities(given: Path, reads: Path, out: Path | None) -> tuple[object, str]:
    """How likely a finding is there, by what its label says (1, 0, -1, blank), learnt from READS of a chance sample.

    READS: CSV of ids and true findings; a column sampling_probability where some were likelier to be read than others.
    """
    import json

    from radia.label_probability import probabilities_of_files
    from radia.metrics import shown
    from radia.workspace import written_whole

    found = probabilities_of_files(given, reads).as_json()
    if out is not None:
        with written_whole(out) as partial:
            partial.write_text(json.dumps({"probabilities": found}, indent=1) + "\n")
    lines = [
        f"{finding}: " + "; ".join(f"{name} {shown(cell)}, {cell['reads']:.0f} reads" for name, cell in stated.items())
        for finding, stated in found.items()
    ]
    return {"probabilities": found}, "\n".join(lines)


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
