"""Blind reads by way of Label Studio: tasks and a labelling interface out, annotations back in as a sheet.

A task holds a study's pseudonym, the address of its picture among Label Studio's local files, and what is to be
decided; no label, no score, no vote. Format: JSON tasks and the JSON export (labelstud.io/guide/task_format).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import pandas as pd

from radia.errors import BadLabelValue, LabelError, UnknownFinding
from radia.findings import ABSENT, PRESENT, UNCERTAIN

CHOICES: Mapping[str, float] = {"present": PRESENT, "absent": ABSENT, "uncertain": UNCERTAIN}
"""What a choice stands for. A finding without a choice was not assessed."""
LOCAL = "/data/local-files/?d="
"""How Label Studio addresses a file below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
_PICTURE = "film"


def tasks(sheet: pd.DataFrame, pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    """One task a row of a sheet (`radia.read_log.export_blind`), in its order. pictures: study -> path."""
    decide = sheet["to_decide"] if "to_decide" in sheet else pd.Series("", index=sheet.index)
    return [
        {"data": {"study": study, "image": LOCAL + pictures[study], "to_decide": what}}
        for study, what in zip(sheet["id"].astype(str), decide.fillna("").astype(str), strict=True)
    ]


def interface(findings: Sequence[str]) -> str:
    """The labelling interface: the picture, and one choice a finding."""
    view = Element("View")
    SubElement(view, "Image", name=_PICTURE, value="$image", zoomControl="true", contrastControl="true")
    SubElement(view, "Header", value="$to_decide")
    for finding in findings:
        SubElement(view, "Header", value=finding, size="5")
        choices = SubElement(
            view, "Choices", name=_name(finding), toName=_PICTURE, choice="single-radio", showInline="true"
        )
        for choice in CHOICES:
            SubElement(choices, "Choice", value=choice)
    indent(view)
    return tostring(view, encoding="unicode") + "\n"


def sheet_of(exported: object, findings: Sequence[str], *, annotator: str = "") -> pd.DataFrame:
    """One person's annotations of a JSON export as a sheet: indexed by study, findings as columns.

    annotator: the number or the e-mail address of the person in Label Studio; needed where the export holds more than
    one. Skipped tasks are left out; of a person's several annotations of a task the last counts. Raises LabelError,
    UnknownFinding, BadLabelValue.
    """
    found = [(study, who, said) for task in _list(exported) for study, who, said in _annotations(task)]
    people = sorted({who for _, who, _ in found})
    if annotator and annotator not in people:
        raise LabelError(f"nobody of this name annotated; {len(people)} people did")
    if not annotator and len(people) > 1:
        raise LabelError(f"{len(people)} people annotated: say which of them (--annotator)")
    names = {_name(finding): finding for finding in findings}
    rows: dict[str, dict[str, float]] = {}
    for study, who, said in found:
        if not annotator or who == annotator:
            rows[study] = _values(said, names)
    if not rows:
        raise LabelError("the export holds no annotation: export as JSON, and finish at least one task")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(findings), dtype=float)
    return table.rename_axis("id")


def _name(finding: str) -> str:
    """A control's name, without blanks."""
    return finding.replace(" ", "_")


def _annotations(task: object) -> list[tuple[str, str, list[Any]]]:
    """Study, annotator and results of every finished annotation of a task, the oldest first."""
    if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
        raise LabelError("this is no JSON export of Label Studio (JSON-MIN and CSV are not read)")
    study, annotations = task["data"].get("study"), task.get("annotations", [])
    if not isinstance(study, str):
        raise LabelError("a task names no study: only what was written for Label Studio here comes back")
    finished = [one for one in _list(annotations) if isinstance(one, Mapping) and not one.get("was_cancelled")]
    finished.sort(key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
    return [(study, _who(one.get("completed_by")), _list(one.get("result", []))) for one in finished]


def _who(completed_by: object) -> str:
    """A person: Label Studio gives a number, or a record with an e-mail address."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id") or "")
    return "" if completed_by is None else str(completed_by)


def _values(results: Sequence[object], names: Mapping[str, str]) -> dict[str, float]:
    values = {}
    for result in results:
        if not isinstance(result, Mapping) or result.get("type") != "choices":
            continue
        name, value = str(result.get("from_name")), result.get("value")
        if name not in names:
            raise UnknownFinding(name, names.values())
        chosen = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(chosen, list) or len(chosen) != 1 or chosen[0] not in CHOICES:
            raise BadLabelValue(f"{names[name]}: expected one choice of {', '.join(CHOICES)}")
        values[names[name]] = CHOICES[chosen[0]]
    return values


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise LabelError("this is no JSON export of Label Studio (JSON-MIN and CSV are not read)")
    return value
