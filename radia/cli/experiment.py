"""Experiments on the embedded hospital, where the truth is known."""

from __future__ import annotations

import click

from radia.cli.frame import main, prints, progress_bars


@main.group()
def experiment() -> None:
    """What a method gives, measured where the truth is known."""


@experiment.command("cleaning")
@click.option("--budget", type=click.IntRange(min=1), default=150, show_default=True, help="Studies re-read.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Hospitals, one a seed.")
@click.option("--train", type=click.IntRange(min=50), default=600, show_default=True, help="Training studies of each.")
@click.option("--test", type=click.IntRange(min=50), default=500, show_default=True, help="Images judged on.")
@click.option("--side", type=click.IntRange(min=32), default=64, show_default=True, help="Of the images, in pixels.")
@click.option("--epochs", type=click.IntRange(min=1), default=8, show_default=True)
@prints
def cleaning(budget: int, seeds: int, train: int, test: int, side: int, epochs: int) -> tuple[object, str]:
    """Fine-tune on given, cleaned, doubted and true labels, and judge on the truth. Some minutes on two cores."""
    from radia import experiment as domain

    size = domain.Size(train=train, validation=max(train // 4, 30), test=test, side=side, epochs=epochs)
    with progress_bars() as progress:
        result = domain.cleaning(size=size, budget=min(budget, train), seeds=seeds, progress=progress)
    return result, domain.told(result)
