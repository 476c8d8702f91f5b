"""From a snapshot to a registered candidate: base, suspects, fine-tuning, evaluation, gate, registration."""

from __future__ import annotations

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
    step_command,
    told,
)
from radia.settings import recipe_file, recipe_names

step_command("gate", "gate", "Judge the candidate's evaluation by the gate's rules.")
step_command("register", "register", "Register the candidate in MLflow; a person approves.")


download_option = click.option(
    "--download", is_flag=True, help="Fetch published weights that are not on this machine; their terms are printed."
)


@main.command()
@download_option
@params_option
@prints
def base(download: bool, params: Path | None) -> tuple[object, str]:
    """Put the checkpoint of the model in use, or of the base of params.yaml, at models/base."""
    from radia import steps

    with opened(params) as site:
        return told(steps.base_model(site, download=download))


@main.command()
@click.option("--data", default="", help="A public collection: chexpert:DIR, nih:DIR, mimic:DIR or padchest:DIR.")
@click.option("--recipe", type=click.Choice(recipe_names()), help="Settings of a published training, by name.")
@download_option
@params_option
@prints
def finetune(data: str, recipe: str | None, download: bool, params: Path | None) -> tuple[object, str]:
    """Fine-tune the model in use on the snapshot, or the base of params.yaml on a public collection."""
    from radia import steps

    if recipe and params:
        raise click.UsageError("a recipe is a params file: give --recipe or --params")
    if download and not data:
        raise click.UsageError("--download goes with --data; for the snapshot it is `radia base` that fetches")
    with opened(recipe_file(recipe) if recipe else params) as site:
        return told(steps.finetune_public(site, data, download=download) if data else steps.finetune(site))


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
    from radia.tables import write_table

    table = suspects_of_files(label_file, probs, reads=reads, ranks_only=scores, seed=seed)
    write_table(table, out)
    return {"labels": len(table), "out": str(out)}, f"{len(table)} labels ranked: {out}"


@main.command()
@click.option("--truth", type=EXISTING_FILE, help="CSV: id and true labels.")
@click.option("--noisy", type=EXISTING_FILE, help="CSV: id and noisy labels.")
@click.option("--reads", type=EXISTING_FILE, help="With --noisy, CSV: id, true labels of a few, sampling_probability.")
@click.option("--probs", type=EXISTING_FILE, help="CSV: id and probabilities.")
@click.option("--thresholds", type=EXISTING_FILE, help="CSV: finding,threshold.")
@click.option("--decisions", type=EXISTING_FILE, help="CSV: id and decisions (0 or 1).")
@click.option("--patients", type=EXISTING_FILE, help="CSV: id and patient, for intervals by patient.")
@click.option("--readers", type=EXISTING_FOLDER, help="A folder of CSVs, one a human reader: id and decisions.")
@click.option("--external", multiple=True, help="Of the candidate, NAME=chexpert:DIR or NAME=nih:DIR, any number.")
@click.option("--scores", is_flag=True, help="With --noisy: the probabilities are only ranks.")
@click.option("--compare", type=EXISTING_FILE, help="With --noisy, CSV: a second model's probabilities.")
@click.option("--compare-thresholds", type=EXISTING_FILE, help="Its thresholds, if others than --thresholds.")
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
    external: tuple[str, ...],
    scores: bool,
    compare: Path | None,
    compare_thresholds: Path | None,
    seed: int,
    params: Path | None,
) -> object:
    """Metrics with 95% intervals: of files, or of the candidate beside the model in use."""
    if truth is None and noisy is None and probs is None:
        from radia import steps

        with opened(params) as site:
            return told(steps.evaluate(site, external=dict(_named(entry) for entry in external)))
    if probs is not None and truth is not None and noisy is None and not scores:
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
    if probs is not None and noisy is not None and truth is None:
        from radia.estimate import estimate_files

        return estimate_files(
            noisy=noisy,
            reads=reads,
            probs=probs,
            thresholds=thresholds,
            compare=compare,
            compare_thresholds=compare_thresholds,
            ranks_only=scores,
            seed=seed,
        )
    raise click.UsageError("give --probs with either --truth, or --noisy and what was read of it (--reads)")


def _named(entry: str) -> tuple[str, str]:
    name, equals, images = entry.partition("=")
    if not (name and equals and images):
        raise click.BadParameter("expected NAME=collection:DIR", param_hint="--external")
    return name, images
