"""Blind re-reads: which to make, and what they say."""

from __future__ import annotations

from pathlib import Path

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, main, prints, write_csv


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

    chosen = choose_of_files(label_file, probs, budget=budget, seed=seed)
    write_csv(chosen, out)
    return {"chosen": len(chosen), "out": str(out)}, f"{len(chosen)} to read: {out}"
