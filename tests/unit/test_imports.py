"""The import rules of the design: which framework lives where, and which way imports go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HOMES = {
    "pydicom": (
        "radia/dicom/",
        "radia/intake",
        "radia/synthetic/",
        "radia/images.py",
        "radia/manifest.py",
        "radia/web/",
    ),
    "great_expectations": ("radia/quality.py",),
    "cleanlab": ("radia/suspects.py",),
    "torch": (
        "radia/model.py",
        "radia/members.py",
        "radia/fit/",
        "radia/predict.py",
        "radia/explain.py",
        "radia/base_weights.py",
        "radia/pickles.py",
    ),
    "mlflow": ("radia/registry/", "radia/served_model.py"),
    "flask": ("radia/web/",),
    "dagster": ("pipelines/",),
    "dvc": ("radia/snapshot/",),
    "pipelines": ("pipelines/",),
}
ALONE = (
    "radia/model.py",
    "radia/members.py",
    "radia/predict.py",
    "radia/explain.py",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("radia/fit/*.py")),
)
"""What must run on a bare GPU machine."""

ORCHESTRATION = {"dagster", "mlflow", "dvc", "flask", "great_expectations", "cleanlab", "pydicom", "click"}


def sources() -> list[Path]:
    return sorted([*(ROOT / "radia").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("framework", HOMES)
def test_a_framework_is_imported_at_home_only(framework: str) -> None:
    strangers = [
        name
        for path in sources()
        if not (name := path.relative_to(ROOT).as_posix()).startswith(HOMES[framework])
        and any(module.split(".")[0] == framework for module in imported(path))
    ]
    assert strangers == []


@pytest.mark.parametrize("name", ALONE)
def test_training_runs_without_any_orchestration(name: str) -> None:
    found = {module.split(".")[0] for module in imported(ROOT / name)}
    assert found & ORCHESTRATION == set()


def test_the_domain_does_not_know_the_registry_the_ledger_or_the_commands() -> None:
    upper = (
        "registry",
        "approval",
        "ledger",
        "trace",
        "access",
        "audit",
        "bundle",
        "exchange",
        "trace_page",
        "withdrawal",
        "contradictions",
        "erasure",
        "steps",
        "summary",
        "demo",
        "cli",
        "services",
        "operations",
        "web",
        "served_model",
        "__main__",
    )
    wrong = [
        (path.name, module)
        for path in sources()
        if path.is_relative_to(ROOT / "radia")
        and path.relative_to(ROOT / "radia").parts[0].removesuffix(".py") not in upper
        for module in imported(path)
        if module.startswith("radia.") and module.split(".")[1] in upper
    ]
    assert wrong == []


def test_nothing_is_named_what_the_design_does_without() -> None:
    assert [path for path in sources() if path.stem in {"utils", "helpers", "common", "misc"}] == []
