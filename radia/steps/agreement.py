"""Whether labels from reports agree well enough with a person's to be trained on, as params.yaml asks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from radia import digests
from radia.errors import LabelError, QualityBlocked
from radia.steps.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from radia.settings import AgreementSettings


def without_left_out(run: Run, given: pd.DataFrame) -> pd.DataFrame:
    """The given labels without those from reports of the findings that are left out."""
    from radia.findings import position
    from radia.labels import REPORT, origin_column

    settings = run.settings.labels.agreement
    if settings is None or not settings.leave_out:
        return given
    kept = given.copy()
    for finding in settings.leave_out:
        position(finding)
        from_report = kept[origin_column(finding)] == REPORT
        kept.loc[from_report, finding] = float("nan")
        kept.loc[from_report, origin_column(finding)] = None
    return kept


def agreement_inputs(run: Run) -> dict[str, str]:
    """The digest of the check and of its bars, for the inputs of the snapshot; none where no check is asked for."""
    settings = run.settings.labels.agreement
    if settings is None:
        return {}
    path = run.workspace.root / settings.file
    return {
        "agreement": digests.of_file(path) if path.is_file() else "none",
        "agreement bars": settings.digest(),
    }


def require_agreement(run: Run, given: pd.DataFrame) -> None:
    """Raises QualityBlocked where a finding with labels from reports is under its bar, was not checked, or where the
    check was made with other rules than those in use; LabelError where its file is no such check."""
    from radia.label_agreement import reasons_against
    from radia.labels import REPORT, origin_column
    from radia.reports import rules_digest

    settings = run.settings.labels.agreement
    if settings is None:
        return
    trained_on = [
        finding
        for finding, bars in _bars(settings).items()
        if any(bars.values()) and (given[origin_column(finding)] == REPORT).any()
    ]
    if not trained_on:
        return
    path = run.workspace.root / settings.file
    if not path.is_file():
        raise QualityBlocked(
            f"labels from reports were never checked: labels.agreement names {settings.file}, which is not there; "
            "label some 300 reports twice and run `radia labels agree A.csv B.csv --out` with that name"
        )
    try:
        result = json.loads(path.read_text())
        found, rules = result["findings"], result["rules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelError(f"{settings.file} is not what `radia labels agree --out` writes") from error
    if rules != rules_digest():
        raise QualityBlocked(
            f"{settings.file} was measured with other report rules than those in use: label the reports again and run "
            "`radia labels agree` again"
        )
    against = reasons_against(found, {finding: _bars(settings)[finding] for finding in trained_on})
    if against:
        told = "; ".join(f"{finding}: {why}" for finding, why in against.items())
        raise QualityBlocked(
            f"labels from reports are under their bar ({told}): mend them, or leave these findings' labels out "
            "(labels.agreement.leave_out)"
        )


def _bars(settings: AgreementSettings) -> dict[str, dict[str, float]]:
    """The bars of every finding that is not left out."""
    from radia.findings import FINDINGS, position

    for finding in (*settings.kappa_by_finding, *settings.f1_by_finding, *settings.leave_out):
        position(finding)
    return {
        finding: {
            "kappa": settings.kappa_by_finding.get(finding, settings.kappa),
            "f1": settings.f1_by_finding.get(finding, settings.f1),
        }
        for finding in FINDINGS
        if finding not in settings.leave_out
    }
