"""The lock against advisories: against PyPI's database where it can be reached, against the list beside this file else.

The list is kept by hand and is not complete: what it can say is that a weakness known when it was written came back.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LIST = Path(__file__).parent / "advisories.csv"


@dataclass(frozen=True)
class Weakness:
    """One pinned version with a known weakness."""

    package: str
    version: str
    advisory: str
    what: str


def pinned(lock: Path) -> dict[str, Version]:
    """The version that a lock file pins of each package."""
    lines = (line.partition("#")[0].strip() for line in lock.read_text().splitlines())
    wanted = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(one.name): Version(next(iter(one.specifier)).version) for one in wanted}


def listed(lock: Path) -> list[Weakness]:
    """What the list of this folder knows of the pinned versions."""
    versions = pinned(lock)
    with LIST.open() as file:
        rows = [row for row in csv.DictReader(file) if row["package"] in versions]
    return [
        Weakness(row["package"], str(versions[row["package"]]), row["advisory"], row["weakness"])
        for row in rows
        if versions[row["package"]] < Version(row["fixed_in"])
    ]


def asked(lock: Path) -> list[Weakness] | None:
    """What PyPI's database knows (pip-audit). None where it knows none of the packages: no database was reached."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        return None
    return answered(json.loads(done.stdout))


def answered(report: dict[str, list[dict[str, object]]]) -> list[Weakness] | None:
    """pip-audit's answer. A package that it skipped was not audited; its exit status does not say so."""
    audited = [package for package in report["dependencies"] if "vulns" in package]
    return [weakness for package in audited for weakness in _of(package)] if audited else None


def _of(package: dict[str, object]) -> Iterator[Weakness]:
    found = package["vulns"]
    for one in found if isinstance(found, list) else []:
        what = " ".join(str(one.get("description", "")).split())[:120]
        yield Weakness(str(package["name"]), str(package["version"]), str(one["id"]), what)
