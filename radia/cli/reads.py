"""Blind re-reads: which to make, and what they say."""

from __future__ import annotations

from pathlib import Path

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, main, opened, params_option, prints, told


@main.group()
def reads() -> None:
    """Blind re-reads."""


@reads.command("choose")
@click.option("--labels", "label_file", type=EXISTING_FILE, required=True, help="CSV: id and given labels.")
@click.option("--probs", type=EXISTING_FILE, required=True, help="CSV: id and probabilities.")
@click.option("--budget", type=click.IntRange(min=1), required=True)
@click.option("--compare", type=EXISTING_FILE, help="CSV: probabilities of a second model; reads tell the two apart.")
@click.option("--scores", is_flag=True, help="The probabilities are only ranks: any finite number will do.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=ANY_PATH, required=True)
@prints
def choose(
    label_file: Path, probs: Path, budget: int, compare: Path | None, scores: bool, seed: int, out: Path
) -> tuple[object, str]:
    """Which ids to re-read so that the estimates become precise, with their sampling probabilities."""
    from radia.reads import choose_of_files
    from radia.tables import write_table

    chosen = choose_of_files(label_file, probs, budget=budget, seed=seed, ranks_only=scores, compare=compare)
    write_table(chosen, out)
    return {"chosen": len(chosen), "out": str(out)}, f"{len(chosen)} to read: {out}"


@reads.command("plan")
@click.option("--finding", required=True)
@click.option("--half-width", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), required=True)
@click.option("--metric", type=click.Choice(["auroc", "f1", "sensitivity", "specificity"]), default="auroc")
@click.option("--labels", "label_file", type=EXISTING_FILE, help="CSV: id and given labels.")
@click.option("--probs", type=EXISTING_FILE, help="CSV: id and probabilities.")
@click.option("--reads", "read_file", type=EXISTING_FILE, help="CSV: id and true labels so far.")
@click.option("--seed", default=0, show_default=True)
@params_option
@prints
def plan(
    finding: str,
    half_width: float,
    metric: str,
    label_file: Path | None,
    probs: Path | None,
    read_file: Path | None,
    seed: int,
    params: Path | None,
) -> tuple[object, str]:
    """How many evaluation reads bring a finding's 95% interval to ± HALF_WIDTH: of files, or of the snapshot in use."""
    if label_file is None and probs is None and read_file is None:
        from radia import steps

        with opened(params) as site:
            found = steps.plan_reads(site, finding=finding, half_width=half_width, metric=metric)
    elif label_file is not None and probs is not None:
        from radia.reads import plan_of_files

        found = plan_of_files(
            label_file, probs, finding=finding, half_width=half_width, metric=metric, reads=read_file, seed=seed
        )
    else:
        raise click.UsageError("give --labels and --probs together, or neither")
    curve = [{"reads": budget, "half_width": width} for budget, width in found.curve]
    lines = [found.sentence(), *(f"  {budget:>5} reads: ±{width:.3f}" for budget, width in found.curve)]
    return {"finding": finding, "metric": metric, "needed": found.needed, "curve": curve}, "\n".join(lines)


@reads.command("queue")
@click.option("--budget", type=click.IntRange(min=1), required=True, help="Studies to ask for, over all queues.")
@params_option
@prints
def queue(budget: int, params: Path | None) -> tuple[object, str]:
    """Ask for more reads: a sample of the test side, suspect labels of the training side, repeats."""
    from radia import steps

    with opened(params) as site:
        return told(steps.queue_reads(site, budget=budget))


reader_option = click.option("--reader", required=True, help="Who reads; stays in the record.")
role_option = click.option(
    "--role",
    type=click.Choice(["reader", "adjudicator", "again"]),
    default="reader",
    show_default=True,
    help="An adjudicator decides disagreements; again: a reader's second look.",
)


@reads.command("export")
@click.argument("target", type=ANY_PATH)
@reader_option
@role_option
@params_option
@prints
def export(target: Path, reader: str, role: str, params: Path | None) -> tuple[object, str]:
    """Write the sheet of what this person can read now: pseudonyms and pictures, no label, no model output."""
    from radia import steps

    with opened(params) as site:
        done = steps.export_reads(site, target, reader=reader, role=role)
    return done, f"{done['studies']} studies to read: {target}"


@reads.command("import")
@click.argument("sheet", type=EXISTING_FILE)
@reader_option
@role_option
@click.option("--model-visible", is_flag=True, help="The reader saw the model's answer: kept apart, never counted.")
@params_option
@prints
def import_(sheet: Path, reader: str, role: str, model_visible: bool, params: Path | None) -> tuple[object, str]:
    """Take a filled-in sheet (1 present, 0 absent, -1 uncertain, blank not read) into the record."""
    from radia import steps

    with opened(params) as site:
        done = steps.import_reads(site, sheet, reader=reader, role=role, model_visible=model_visible)
    return done, f"{done['new']} new reads; {done['reads']} reads of {done['studies']} studies in all"


@reads.command("to-label-studio")
@click.argument("folder", type=ANY_PATH)
@reader_option
@role_option
@params_option
@prints
def to_label_studio(folder: Path, reader: str, role: str, params: Path | None) -> tuple[object, str]:
    """Write tasks, labelling interface and pictures of what this person can read now, for Label Studio."""
    from radia import steps

    with opened(params) as site:
        done = steps.export_label_studio(site, folder, reader=reader, role=role)
    return done, f"{done['studies']} tasks: {folder}; the folder that holds it is Label Studio's document root"


@reads.command("from-label-studio")
@click.argument("exported", type=EXISTING_FILE)
@reader_option
@role_option
@click.option("--annotator", default="", help="Number or e-mail address in Label Studio, where several annotated.")
@params_option
@prints
def from_label_studio(
    exported: Path, reader: str, role: str, annotator: str, params: Path | None
) -> tuple[object, str]:
    """Take one person's annotations of a JSON export of Label Studio into the log."""
    from radia import steps

    with opened(params) as site:
        done = steps.import_label_studio(site, exported, reader=reader, role=role, annotator=annotator)
    return done, f"{done['new']} new reads by {reader}; {done['reads']} in all"


@reads.command("status")
@click.option("--latent", is_flag=True, help="Readers' error rates by a latent reader model, and what it assumes.")
@params_option
@prints
def status(latent: bool, params: Path | None) -> tuple[object, str]:
    """What waits, what readers disagree on, what is settled, and how far they agree."""
    from radia import steps

    with opened(params) as site:
        found = steps.reads_status(site, latent=latent)
    lines = [
        f"{name}: {', '.join(f'{count} {state}' for state, count in states.items())}"
        for name, states in found["states"].items()
    ]
    lines += [f"read by {reader}: {count} studies" for reader, count in found["readers"].items()]
    for row in found["agreement"]:
        if row["studies"]:
            kappa = "not known" if row["fleiss"] is None else f"{row['fleiss']:.2f}"
            lines.append(f"  {row['finding']}: {row['agreement']:.0%} of {row['studies']} studies agree, kappa {kappa}")
    if "latent" in found:
        lines += ["Latent reader model, an option beside majority and adjudicator. It takes for granted:"]
        lines += [f"  {assumption}" for assumption in found["latent"]["assumes"]]
        lines += [
            f"  {row['finding']}, {row['reader']}: sensitivity {row['sensitivity']:.2f} "
            f"({row['sensitivity_low']:.2f} to {row['sensitivity_high']:.2f}), specificity {row['specificity']:.2f} "
            f"({row['specificity_low']:.2f} to {row['specificity_high']:.2f}), {row['studies']} studies"
            for row in found["latent"]["readers"]
        ]
    return found, "\n".join(lines)


@reads.command("noise")
@params_option
@prints
def noise(params: Path | None) -> tuple[object, str]:
    """How noisy the test side's labels are, by what was read; writes noise.html beside the evaluation's report."""
    from radia import steps

    with opened(params) as site:
        outcome = steps.noise(site)
        page = site.workspace.evaluation / "noise.html"
    return {**outcome.summary, "page": str(page)}, f"{outcome.summary['sentence']}\n{page}"
