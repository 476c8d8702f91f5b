"""Lineage, proof, and a person's word on a candidate."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, main, opened, prints

DAY = click.DateTime(["%Y-%m-%d"])


@main.command()
@click.argument("kind", type=click.Choice(["model", "image", "patient", "batch", "person", "event"]))
@click.argument("identifier")
@click.option("--html", type=ANY_PATH, help="Write a page instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def trace(kind: str, identifier: str, html: Path | None, as_json: bool) -> None:
    """Where a model, an image, a patient or a batch came from and went; what a person did; what an event led to."""
    from radia import steps
    from radia import trace as lineage
    from radia.trace_page import Links, to_html
    from radia.workspace import written_whole

    with opened() as site:
        tree = steps.trace(site, kind, identifier)
        links = Links.in_force(site.settings)
    if html is not None:
        with written_whole(html) as partial:
            partial.write_text(to_html(tree, links), encoding="utf-8")
        click.echo(json.dumps({"html": str(html)}) if as_json else f"written: {html}")
    elif as_json:
        for piece in lineage.write_json(tree):  # a model's million images: never as one text
            click.echo(piece, nl=False)
        click.echo()
    else:
        click.echo(lineage.render_text(tree))


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


@audit.command()
@click.option("--person", required=True, help="Who renews the key; stays in the record.")
@click.option("--reason", required=True, help="Why; stays in the record.")
@click.option("--new-key", type=EXISTING_FILE, help="The next key, where the ledger's is a secret of the environment.")
@prints
def rekey(person: str, reason: str, new_key: Path | None) -> tuple[object, str]:
    """Sign the ledger with another key from now on; end what writes to it before, and start it again afterwards."""
    from radia import ledger
    from radia.settings import workspace

    event = ledger.rekey(workspace(), person=person, reason=reason, new_key=new_key)
    then = "put the new key in the place of the secret" if new_key else "keys/ledger.key holds the new key"
    return {"event": event.sequence}, f"event {event.sequence} is the first of the new key; {then}"


@audit.command()
@click.option("--patient", help="Only what was used of this patient (pseudonym): studies, images and batches too.")
@click.option("--person", help="Only what this person or account used.")
@click.option("--since", type=DAY, help="First day (UTC).")
@click.option("--until", type=DAY, help="Last day (UTC).")
@click.option("--csv", "target", type=ANY_PATH, help="Write the log as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def access(
    patient: str | None,
    person: str | None,
    since: datetime | None,
    until: datetime | None,
    target: Path | None,
    as_json: bool,
) -> None:
    """Who used which information, when and what for: every use that the ledger keeps, in its order."""
    from radia import steps
    from radia.access import to_csv
    from radia.workspace import written_whole

    with opened() as site:
        days = {"since": since and since.date(), "until": until and until.date()}
        found = steps.uses(site, patient=patient, person=person, **days)
        if target is not None:
            with written_whole(target) as partial, partial.open("w", encoding="utf-8", newline="") as file:
                lines = sum(1 for line in to_csv(found) if file.write(line))
            click.echo(json.dumps({"csv": str(target), "uses": lines - 1}) if as_json else f"written: {target}")
        elif as_json:
            click.echo(json.dumps({"uses": [asdict(use) for use in found]}, ensure_ascii=False))
        else:
            for use in found:
                about = ", ".join(use.about[:3]) + (" …" if len(use.about) > 3 else "")
                what = f"{use.kind} ({use.action}, event {use.event})"
                click.echo(" ".join(filter(None, (f"{use.at[:19]} {use.person}:", what, about, use.purpose))))


@main.command()
@click.argument("model")
@click.argument("target", type=ANY_PATH)
@prints
def restore(model: str, target: Path) -> tuple[object, str]:
    """Bring back the exact snapshot, base and settings of MODEL into TARGET, a new data folder."""
    from radia import steps

    with opened() as site:
        done = steps.restore(site, model, target)
    value = {"model": model, "snapshot": done.snapshot, "images": done.images, "folder": str(done.folder)}
    return value, f"{done.images} images of snapshot {done.snapshot[:12]}, base and settings of {model}: {target}"


@main.command()
@click.argument("model")
@click.argument("target", type=ANY_PATH)
@prints
def reproduce(model: str, target: Path) -> tuple[object, str]:
    """Train and evaluate MODEL again in TARGET, and hold the result to what was recorded."""
    from radia import steps

    with opened() as site:
        done = steps.reproduce(site, model, target)
    same = "the same weights to the bit" if done.exact else f"no metric differs by more than {done.difference:.4f}"
    return done.as_json(), f"{model} was made again in {target}: {same}"


@main.command()
@click.argument("patient")
@click.option(
    "--issuer", default="", help="Who gave out the identifier, where PATIENT is the hospital's and files name one."
)
@click.option("--person", default="", help="On whose word; default: who is logged in. Stays in the record.")
@click.option("--reason", default="", help="Why; stays in the record.")
@click.option("--erase", is_flag=True, help="Also erase the patient's files and pixels; their digests stay.")
@prints
def withdraw(patient: str, issuer: str, person: str, reason: str, erase: bool) -> tuple[object, str]:
    """Take a patient out of every later snapshot; lists the models that saw them.

    PATIENT is the pseudonym or, for the holder of the key, the hospital's own identifier.
    """
    from radia import steps

    with opened() as site:
        done = steps.withdraw(site, patient, reason=reason, issuer=issuer, person=person)
        erased = steps.erase(site, done.patient, person=person) if erase else None
    models = ", ".join(done.models) or "none"
    text = f"{done.patient}: {done.images} images stay out of later snapshots; models that saw them: {models}"
    value: dict[str, object] = {"patient": done.patient, "images": done.images, "models": list(done.models)}
    if erased is not None:
        value["erased"] = {"files": erased.files, "images": erased.images, "tombstones": len(erased.tombstones)}
        text += f"\n{erased.files} files and the pixels of {erased.images} images were erased; their digests stay"
    return value, text


@main.command()
@click.argument("pseudonym")
@click.option("--key", type=ANY_PATH, help="File of the pseudonymisation key, unless RADIA_KEY holds it.")
@click.option("--crosswalk", type=EXISTING_FILE, help="Of `radia deidentify SRC DST`; default: the site's own.")
@click.option("--person", help="Who asks; default: who is logged in. Stays in the record.")
@click.option("--reason", default="", help="Why; stays in the record.")
@prints
def reidentify(
    pseudonym: str, key: Path | None, crosswalk: Path | None, person: str | None, reason: str
) -> tuple[object, str]:
    """Tell what a patient's, study's, image's or accession's PSEUDONYM stands for, to the holder of the key.

    The ledger records who asked for which pseudonym, before anything is shown; what it stands for is not recorded.
    """
    from radia import steps
    from radia.dicom.pseudonyms import load_key
    from radia.settings import key_from_environment

    if key is None and key_from_environment() is None:
        raise click.UsageError("give --key FILE, or the key in RADIA_KEY")
    secret = load_key(key or Path())
    with opened() as site:
        found = steps.reidentify(
            site,
            pseudonym,
            key=secret,
            crosswalk=crosswalk or site.workspace.crosswalk,
            person=person or site.actor,
            reason=reason,
        )
    lines = [f"{origin.patient_id} {origin.accession} {origin.study_uid} {origin.sop_instance_uid}" for origin in found]
    return {"pseudonym": pseudonym, "origins": [asdict(origin) for origin in found]}, "\n".join(lines)


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
    against = click.style(f", against the gate: {override}", fg="red", bold=True) if override else ""
    return {"in use": done.version.uri, "previous": before}, f"{done.version.uri} is in use{against}"


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
