"""Tasks and interface for Label Studio, and its exports back as sheets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from radia.cli import main
from radia.errors import BadLabelValue, LabelError, UnknownFinding
from radia.findings import FINDINGS
from radia.label_studio import CHOICES, interface, sheet_of, tasks
from radia.steps.reads import read_log
from tests.reading_room import site_to_read

FEW = ("Edema", "Pleural Effusion")


def annotation(who: object = 1, *, skipped: bool = False, at: str = "2026-01-01", **choices: str) -> dict[str, Any]:
    """As Label Studio exports one: a choice for each finding that was answered."""
    result = [
        {"id": "x", "from_name": name, "to_name": "film", "type": "choices", "value": {"choices": [choice]}}
        for name, choice in choices.items()
    ]
    return {
        "id": 5,
        "completed_by": who,
        "was_cancelled": skipped,
        "updated_at": at,
        "lead_time": 4.2,
        "result": result,
    }


def task(study: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": {"study": study, "image": "x"}, "annotations": list(annotations), "predictions": []}


class TestOut:
    def test_a_task_is_a_pseudonym_and_a_picture_among_local_files(self) -> None:
        sheet = pd.DataFrame({"id": ["S1", "S2"], "image": "clean/x.dcm", "Edema": np.nan})
        made = tasks(sheet, {"S1": "reads/films/0001.png", "S2": "reads/films/0002.png"})
        assert [one["data"] for one in made] == [
            {"study": "S1", "image": "/data/local-files/?d=reads/films/0001.png", "to_decide": ""},
            {"study": "S2", "image": "/data/local-files/?d=reads/films/0002.png", "to_decide": ""},
        ]

    def test_the_interface_asks_one_choice_of_three_a_finding(self) -> None:
        view = fromstring(interface(FINDINGS))
        choices = view.findall("Choices")
        assert [one.get("name") for one in choices] == [finding.replace(" ", "_") for finding in FINDINGS]
        assert {one.get("toName") for one in choices} == {view.find("Image").get("name")}  # type: ignore[union-attr]
        for one in choices:
            assert [choice.get("value") for choice in one] == list(CHOICES)


class TestBack:
    def test_choices_are_values_and_what_was_not_chosen_is_blank(self) -> None:
        exported = [task("S1", annotation(Edema="present", Pleural_Effusion="absent")), task("S2", annotation())]
        sheet = sheet_of([*exported, task("S3", annotation(Edema="uncertain")), task("S4")], FEW)
        assert sheet.index.tolist() == ["S1", "S3"]
        np.testing.assert_array_equal(sheet.to_numpy(), [[1, 0], [-1, np.nan]])

    def test_a_skipped_task_is_left_out_and_the_last_annotation_counts(self) -> None:
        both = [annotation(Edema="present", at="2026-02-02"), annotation(Edema="absent", at="2026-01-01")]
        sheet = sheet_of([task("S1", *both), task("S2", annotation(skipped=True, Edema="present"))], FEW)
        assert sheet["Edema"].to_dict() == {"S1": 1}

    def test_of_several_annotators_one_must_be_named(self) -> None:
        exported = [task("S1", annotation(1, Edema="present"), annotation({"id": 2, "email": "b@h"}, Edema="absent"))]
        with pytest.raises(LabelError, match="2 people annotated"):
            sheet_of(exported, FEW)
        assert sheet_of(exported, FEW, annotator="b@h").loc["S1", "Edema"] == 0
        assert sheet_of(exported, FEW, annotator="1").loc["S1", "Edema"] == 1
        with pytest.raises(LabelError, match="nobody of this name"):
            sheet_of(exported, FEW, annotator="c@h")

    @pytest.mark.parametrize(
        ("exported", "error"),
        [
            ({}, LabelError),
            ([], LabelError),
            ([1], LabelError),
            ([{"data": {}}], LabelError),
            ([{"study": "S1", "Edema": "present"}], LabelError),
            ([task("S1", annotation(Gout="present"))], UnknownFinding),
            ([task("S1", annotation(Edema="maybe"))], BadLabelValue),
            ([{**task("S1"), "annotations": {}}], LabelError),
        ],
    )
    def test_what_is_no_export_of_ours_is_refused(self, exported: object, error: type[LabelError]) -> None:
        with pytest.raises(error):
            sheet_of(exported, FEW)


def test_the_commands_take_what_they_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_to_read(tmp_path / "site", studies=2, repeats=0, side=64)
    monkeypatch.setenv("RADIA_DATA", str(site.root))
    folder = tmp_path / "to-read"
    out = CliRunner().invoke(main, ["reads", "to-label-studio", str(folder), "--reader", "ann", "--json"])
    assert out.exit_code == 0, out.output
    assert json.loads(out.output)["studies"] == 2
    made = json.loads((folder / "tasks.json").read_text())
    assert fromstring((folder / "interface.xml").read_text()).tag == "View"
    for one in made:
        place = folder.parent / one["data"]["image"].removeprefix("/data/local-files/?d=")
        with Image.open(place) as picture:
            assert picture.size == (1536, 1536)
            assert np.asarray(picture).std() > 20
        one["annotations"] = [annotation(Edema="present", Fracture="absent")]
    (tmp_path / "export.json").write_text(json.dumps(made))
    back = ["reads", "from-label-studio", str(tmp_path / "export.json"), "--reader", "ann"]
    for new in (4, 0):
        done = CliRunner().invoke(main, [*back, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["new"] == new
    log = read_log(site)
    assert log is not None
    assert set(zip(log["reader"], log["source"], strict=True)) == {("ann", "label studio")}
