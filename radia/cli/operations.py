"""What an administrator does to a site: secrets, databases, backups, checks."""

from __future__ import annotations

from pathlib import Path

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, EXISTING_FOLDER, main, prints
from radia.settings import workspace


@main.command()
@click.argument("folder", type=ANY_PATH)
@click.option("--host", default="localhost", show_default=True, help="Name under which people reach the proxy.")
@prints
def secrets(folder: Path, host: str) -> tuple[object, str]:
    """Make the secrets that docker-compose.yml names in FOLDER; what is there stays."""
    from radia.operations.secret_files import write_secrets

    new = write_secrets(folder, host=host)
    return {"folder": str(folder), "new": new}, f"{folder}: {', '.join(new) or 'nothing was missing'}"


@main.command()
@click.option("--passwords", type=EXISTING_FILE, help="pgpass_admin of `radia secrets`: make roles and databases too.")
@click.option("--without-backup", is_flag=True, help="Migrate PostgreSQL's databases though no backup is of today.")
@prints
def migrate(passwords: Path | None, without_backup: bool) -> tuple[object, str]:
    """Bring every database to the schema of this version; with --passwords make what is missing in PostgreSQL."""
    from radia.operations import migration, secret_files
    from radia.operations.databases import prepare

    site, made = workspace(), prepare(passwords) if passwords else []
    role = secret_files.ADMINISTRATOR if passwords else ""
    before = migration.migrate(site, administrator=role, backed_up=without_backup)
    lines = [f"made {one}" for one in made]
    lines += [f"{one.name}: {one.found or 'new'} → {one.wanted}" for one in before if one.found != one.wanted]
    if any(one.pending for one in before) and (site.root / migration.BEFORE).is_dir():
        lines.append(f"kept as they were: {site.root / migration.BEFORE}")
    value = {"made": made, "schemas": {one.name: {"before": one.found, "now": one.wanted} for one in before}}
    return value, "\n".join(lines) or "every database is up to date"


@main.command()
@click.argument("url")
@click.option("--approver", help="Instead, make this person's account, who may approve candidates in MLflow.")
@click.option("--password-file", type=EXISTING_FILE, help="The first line is the approver's password; else asked for.")
@prints
def accounts(url: str, approver: str | None, password_file: Path | None) -> tuple[object, str]:
    """Make MLflow's accounts of RADIA itself (pipeline, web) on the server at URL, or an approver's."""
    from radia.operations import accounts as domain

    if approver:
        asked = "" if password_file else click.prompt("Password", hide_input=True, confirmation_prompt=True)
        domain.make_approver(url.rstrip("/"), approver, _first_line(password_file) or asked)
        return {"approver": approver}, f"{approver} may approve candidates"
    new = domain.make_accounts(url.rstrip("/"))
    return {"new": new}, f"new accounts: {', '.join(new) or 'none'}"


@main.command()
@click.option("--reach-out/--stay-in", default=True, help="Whether to try if a connection to outside opens.")
@prints
def doctor(reach_out: bool) -> tuple[object, str]:
    """Look at versions, disks, keys, databases, servers, clock and ways out; status 1 where one of them is bad."""
    from dataclasses import asdict

    from radia.operations.doctor import examine, worst

    found = examine(workspace(), reach_out=reach_out)
    state = worst(found)
    context = click.get_current_context()
    context.call_on_close(lambda: context.exit(1) if state == "fail" else None)
    lines = [
        f"{one.state:<5}{one.subject:<12}{one.found}" + (f"\n{'':<17}→ {one.advice}" if one.advice else "")
        for one in found
    ]
    return {"state": state, "findings": [asdict(one) for one in found]}, "\n".join(lines)


@main.command()
@click.option("--remove", is_flag=True, help="Remove what the rules let go; without it they are only listed.")
@prints
def retention(remove: bool) -> tuple[object, str]:
    """What may go by the rules of params.yaml (section retention): landing files, quarantine, logs, old shards."""
    from dataclasses import asdict

    from radia.operations import retention as domain
    from radia.steps import open_run

    run = open_run()
    removals = domain.plan(run.workspace, run.settings.retention)
    freed = domain.remove(run.workspace, run.ledger, removals, actor=run.actor) if remove else 0
    total = sum(one.bytes for one in removals)
    last = f"{freed / 1e6:,.1f} MB freed" if remove else f"{total / 1e6:,.1f} MB may go: radia retention --remove"
    lines = [f"{one.rule:<11}{one.bytes / 1e6:>10,.1f} MB  {one.name}" for one in removals]
    value = {"removed": remove, "bytes": total, "removals": [asdict(one) for one in removals]}
    return value, "\n".join([*lines, last]) if removals else "nothing may go"


passphrase_option = click.option(
    "--passphrase-file", type=EXISTING_FILE, help="The keys too, sealed under the passphrase in the file's first line."
)


@main.command()
@click.argument("target", type=ANY_PATH)
@passphrase_option
@prints
def backup(target: Path, passphrase_file: Path | None) -> tuple[object, str]:
    """Write all that this site is to TARGET, a new folder, while its services run; keys only with a passphrase."""
    from radia.operations import backup as domain
    from radia.steps import open_run

    run = open_run()
    taken = domain.take(run.workspace, target, actor=run.actor, passphrase=_first_line(passphrase_file))
    keys = "keys sealed" if taken.keys else "without keys: keep them elsewhere"
    return domain.told(taken), f"{target}: {len(taken.files)} files, ledger at {taken.anchor[:20]}…, {keys}"


@main.command("restore-backup")
@click.argument("source", type=EXISTING_FOLDER)
@passphrase_option
@click.option("--check", is_flag=True, help="Hold the backup against its list, and write nothing.")
@prints
def restore_backup(source: Path, passphrase_file: Path | None, check: bool) -> tuple[object, str]:
    """Bring the backup SOURCE back into the empty data folder, and verify its ledger, files and model."""
    from dataclasses import asdict

    from radia.operations import backup as domain

    if check:
        whole = domain.read(source)
        return domain.told(whole), f"{source}: whole, {len(whole.files)} files of {whole.taken}"
    site = workspace()
    done = domain.restore(source, site, passphrase=_first_line(passphrase_file))
    facts = f"{done.files} files, {done.events} events verify, {done.artefacts} recorded files, in use: {done.model}"
    return asdict(done), f"{site.root}: {facts}"


def _first_line(file: Path | None) -> str:
    return (file.read_text().splitlines() or [""])[0] if file else ""
