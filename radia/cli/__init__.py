"""The command `radia`: reads options, calls a step or a stand-alone function, prints. Nothing is computed here."""

from radia.cli import data, experiment, explain, job, lineage, models, monitoring, operations, people, reads, services
from radia.cli.frame import main

__all__ = [
    "data",
    "experiment",
    "explain",
    "job",
    "lineage",
    "main",
    "models",
    "monitoring",
    "operations",
    "people",
    "reads",
    "services",
]
