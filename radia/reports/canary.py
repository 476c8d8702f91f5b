"""The labeler labels reports whose labels are known before it labels any other."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from radia.errors import LabelError
from radia.findings import FINDINGS
from radia.reports.labeler import label_report


@lru_cache(maxsize=1)
def check_canary() -> None:
    """Raises LabelError, naming the findings, where a canary report gets other labels than its own."""
    for number, canary in enumerate(_canaries(), start=1):
        got = label_report(canary["text"]).values
        wrong = [finding for finding in FINDINGS if got[finding] != canary["labels"].get(finding)]
        if wrong:
            raise LabelError(
                f"canary report {number} is labelled wrongly in {', '.join(wrong)}: the report rules or their files "
                "are damaged; no report is labelled"
            )


def _canaries() -> list[dict[str, Any]]:
    text = (resources.files("radia.reports") / "canary.yaml").read_text(encoding="utf-8")
    canaries: list[dict[str, Any]] = yaml.safe_load(text)
    return canaries
