"""Two tables of labels compared, their bars, and the snapshot that waits for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from radia.cli import main
from radia.errors import LabelError, QualityBlocked, UnmatchedIds
from radia.findings import FINDINGS
from radia.label_agreement import label_agreement, reasons_against, summary
from radia.labels import REPORT, origin_column
from radia.reports import rules_digest
from radia.settings import AgreementSettings, LabelSettings, Settings
from radia.steps import snapshot
from radia.steps.agreement import agreement_inputs, require_agreement, without_left_out
from radia.steps.run import Run
from radia.workspace import Workspace

NAN = float("nan")


def table(**findings: list[float]) -> pd.DataFrame:
    count = len(next(iter(findings.values())))
    return pd.DataFrame({"id": [f"r{number}" for number in range(count)], **findings})


def of_cells(both: int, first: int, second: int, neither: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of Edema with these counts."""
    a = [1.0] * (both + first) + [0.0] * (second + neither)
    b = [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither
    return table(Edema=a), table(Edema=b)


class TestAgreement:
    def test_kappa_and_f1_are_those_of_the_four_cells(self) -> None:
        (item,) = label_agreement(*of_cells(20, 5, 10, 65))
        expected = (0.85 - (0.25 * 0.30 + 0.75 * 0.70)) / (1 - (0.25 * 0.30 + 0.75 * 0.70))
        assert item.kappa.value == pytest.approx(expected)
        assert item.f1.value == pytest.approx(2 * 20 / (2 * 20 + 15))
        assert (item.both, item.first_only, item.second_only, item.neither) == (20, 5, 10, 65)

    def test_limits_hold_the_value_and_narrow_with_more_studies(self) -> None:
        (few,) = label_agreement(*of_cells(8, 1, 1, 40))
        (many,) = label_agreement(*of_cells(80, 10, 10, 400))
        for item in (few, many):
            assert item.kappa.low < item.kappa.value < item.kappa.high
            assert item.f1.low < item.f1.value < item.f1.high
        assert many.kappa.high - many.kappa.low < (few.kappa.high - few.kappa.low) / 2

    def test_full_agreement_of_few_is_not_taken_for_certainty(self) -> None:
        (item,) = label_agreement(*of_cells(5, 0, 0, 45))
        assert item.kappa.value == item.f1.value == 1.0
        assert item.kappa.low < 0.9
        assert item.f1.low < 0.9

    def test_rows_are_matched_by_id_and_not_by_place(self) -> None:
        first = table(Edema=[1.0, 0.0, 0.0])
        (item,) = label_agreement(first, first.iloc[::-1])
        assert item.same == 1.0

    def test_a_blank_is_absent_unless_it_was_not_read(self) -> None:
        first, second = table(Edema=[1.0, 0.0, NAN, NAN]), table(Edema=[1.0, 0.0, 1.0, NAN])
        (absent,) = label_agreement(first, second)
        (unread,) = label_agreement(first, second, blank="unread")
        assert (absent.studies, absent.second_only, absent.same) == (4, 1, 0.75)
        assert (unread.studies, unread.second_only, unread.same) == (2, 0, 1.0)

    def test_uncertain_is_not_present_and_not_the_same_as_absent(self) -> None:
        (item,) = label_agreement(table(Edema=[-1.0, 1.0]), table(Edema=[0.0, 1.0]))
        assert (item.both, item.neither, item.same) == (1, 1, 0.5)

    def test_what_cannot_be_computed_says_why(self) -> None:
        found = summary(label_agreement(*of_cells(0, 0, 0, 9)))["findings"]["Edema"]
        assert found["kappa"] == {"value": None, "low": None, "high": None, "why": "no study differs from another"}
        assert found["f1"]["why"] == "present in no study of either"

    def test_tables_of_other_studies_are_refused(self) -> None:
        other = table(Edema=[1.0]).assign(id="x")
        with pytest.raises(UnmatchedIds, match="none of the 1 ids"):
            label_agreement(table(Edema=[1.0]), other)

    @pytest.mark.parametrize("bars", [{"auroc": 0.5}, {"kappa": 1.5}])
    def test_a_bar_that_is_none_is_refused(self, bars: dict[str, float]) -> None:
        with pytest.raises(LabelError, match="expected kappa or f1"):
            label_agreement(*of_cells(1, 1, 1, 1), bars=bars)

    def test_a_bar_for_a_finding_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(LabelError, match="'Fracture'"):
            label_agreement(*of_cells(1, 1, 1, 1), bars_by_finding={"Fracture": {"kappa": 0.5}})


class TestBars:
    def test_a_finding_under_its_bar_is_named_with_the_value(self) -> None:
        against = summary(label_agreement(*of_cells(20, 5, 10, 65), bars={"kappa": 0.8}))["under_bar"]
        assert list(against) == ["Edema"]
        assert against["Edema"].startswith("kappa 0.625 (")
        assert against["Edema"].endswith("bar 0.8")

    def test_a_finding_at_its_bar_passes(self) -> None:
        assert summary(label_agreement(*of_cells(5, 0, 0, 5), bars={"kappa": 1.0, "f1": 1.0}))["under_bar"] == {}

    def test_a_finding_s_own_bar_goes_before_that_of_all(self) -> None:
        items = label_agreement(
            *of_cells(20, 5, 10, 65), bars={"kappa": 0.8}, bars_by_finding={"Edema": {"kappa": 0.5}}
        )
        assert summary(items)["under_bar"] == {}

    def test_what_cannot_be_shown_reaches_no_bar_but_zero(self) -> None:
        assert (
            "cannot be shown" in summary(label_agreement(*of_cells(0, 0, 0, 9), bars={"f1": 0.1}))["under_bar"]["Edema"]
        )
        assert summary(label_agreement(*of_cells(0, 0, 0, 9), bars={"f1": 0.0}))["under_bar"] == {}

    def test_a_finding_that_was_not_compared_reaches_no_bar(self) -> None:
        assert "it was not compared" in reasons_against({}, {"Edema": {"kappa": 0.5}})["Edema"]


class TestCommand:
    def written(self, folder: Path, *cells: int) -> list[str]:
        paths = [folder / "a.csv", folder / "b.csv"]
        for frame, path in zip(of_cells(*cells), paths, strict=True):
            frame.to_csv(path, index=False)
        return [str(path) for path in paths]

    def test_the_result_is_printed_and_kept(self, tmp_path: Path) -> None:
        out = tmp_path / "agreement.json"
        arguments = ["labels", "agree", *self.written(tmp_path, 20, 5, 10, 65), "--out", str(out), "--json"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert printed == json.loads(out.read_text())
        assert set(printed) == {"studies", "blank", "first", "second", "rules", "findings", "under_bar", "mean"}
        assert printed["studies"] == 100
        assert printed["findings"]["Edema"]["kappa"]["value"] == pytest.approx(0.625)

    def test_status_1_where_a_finding_is_under_its_bar(self, tmp_path: Path) -> None:
        out = tmp_path / "agreement.json"
        arguments = ["labels", "agree", *self.written(tmp_path, 20, 5, 10, 65), "--bar", "Edema:kappa=0.8"]
        result = CliRunner().invoke(main, [*arguments, "--out", str(out)])
        assert result.exit_code == 1
        assert "UNDER THE BAR" in result.stdout
        assert "radia: under the bar: Edema" in result.stderr
        assert list(json.loads(out.read_text())["under_bar"]) == ["Edema"]

    def test_a_bar_that_cannot_be_read_is_a_wrong_use(self, tmp_path: Path) -> None:
        arguments = ["labels", "agree", *self.written(tmp_path, 1, 1, 1, 1), "--bar", "kappa"]
        assert CliRunner().invoke(main, arguments).exit_code == 2


def given(origin: str = REPORT) -> pd.DataFrame:
    """Two studies with every label from this origin."""
    values = {finding: [1.0, 0.0] for finding in FINDINGS}
    return pd.DataFrame({"study": ["a", "b"], **values, **{origin_column(f): [origin, origin] for f in FINDINGS}})


class TestSnapshotWaits:
    def run(self, folder: Path, **options: object) -> Run:
        agreement = AgreementSettings.model_validate({"file": "agreement.json", **options})
        settings = Settings(labels=LabelSettings(agreement=agreement))
        return Run(Workspace(folder), settings, "somebody")

    def write(self, folder: Path, *, kappa: float = 0.9, rules: str | None = None) -> None:
        interval = {"value": kappa, "low": kappa - 0.1, "high": min(1.0, kappa + 0.1)}
        findings = {finding: {"kappa": interval, "f1": interval} for finding in FINDINGS}
        result = {"rules": rules or rules_digest(), "findings": findings}
        (folder / "agreement.json").write_text(json.dumps(result))

    def blocks(self, run: Run, labels: pd.DataFrame) -> bool:
        try:
            require_agreement(run, labels)
        except QualityBlocked:
            return True
        return False

    def test_without_the_setting_nothing_is_asked(self, tmp_path: Path) -> None:
        assert not self.blocks(Run(Workspace(tmp_path), Settings(), "somebody"), given())
        assert self.blocks(self.run(tmp_path, kappa=0.8), given())

    def test_labels_pass_that_agree_as_well_as_is_asked(self, tmp_path: Path) -> None:
        self.write(tmp_path, kappa=0.9)
        assert not self.blocks(self.run(tmp_path, kappa=0.8, f1=0.8), given())
        assert self.blocks(self.run(tmp_path, kappa=0.8, f1=0.95), given())

    def test_a_finding_under_its_bar_blocks_by_name(self, tmp_path: Path) -> None:
        self.write(tmp_path, kappa=0.7)
        with pytest.raises(QualityBlocked, match=r"Edema: kappa 0\.700 \(0\.600 to 0\.800\), bar 0\.8.*leave_out"):
            require_agreement(self.run(tmp_path, kappa_by_finding={"Edema": 0.8}), given())

    def test_labels_that_are_not_from_reports_need_no_check(self, tmp_path: Path) -> None:
        assert not self.blocks(self.run(tmp_path, kappa=0.8), given("given"))
        assert self.blocks(self.run(tmp_path, kappa=0.8), given(REPORT))

    def test_a_check_that_was_never_made_blocks(self, tmp_path: Path) -> None:
        with pytest.raises(QualityBlocked, match="were never checked"):
            require_agreement(self.run(tmp_path, kappa=0.8), given())

    def test_a_check_of_other_rules_blocks(self, tmp_path: Path) -> None:
        self.write(tmp_path, rules="of last year")
        with pytest.raises(QualityBlocked, match="other report rules"):
            require_agreement(self.run(tmp_path, kappa=0.8), given())

    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "agreement.json").write_text("[]")
        with pytest.raises(LabelError, match="is not what"):
            require_agreement(self.run(tmp_path, kappa=0.8), given())

    def test_a_finding_left_out_does_not_block_and_is_blank(self, tmp_path: Path) -> None:
        self.write(tmp_path, kappa=0.7)
        run = self.run(tmp_path, kappa_by_finding={"Edema": 0.8}, leave_out=["Edema"])
        require_agreement(run, given())
        kept = without_left_out(run, given())
        assert kept["Edema"].isna().all()
        assert kept[origin_column("Edema")].isna().all()
        assert kept["Cardiomegaly"].tolist() == [1.0, 0.0]

    def test_only_labels_from_reports_are_left_out(self, tmp_path: Path) -> None:
        kept = without_left_out(self.run(tmp_path, leave_out=["Edema"]), given("given"))
        assert kept["Edema"].tolist() == [1.0, 0.0]

    def test_the_snapshot_step_is_blocked(self, tmp_path: Path) -> None:
        run = self.run(tmp_path, kappa=0.8)
        run.workspace.labels.mkdir(parents=True)
        given().to_parquet(run.workspace.labels / "given.parquet")
        with pytest.raises(QualityBlocked, match="were never checked"):
            snapshot(run)

    def test_a_new_check_or_bar_makes_a_new_snapshot(self, tmp_path: Path) -> None:
        self.write(tmp_path, kappa=0.9)
        first = agreement_inputs(self.run(tmp_path, kappa=0.8))
        assert agreement_inputs(self.run(tmp_path, kappa=0.7)) != first
        self.write(tmp_path, kappa=0.95)
        assert agreement_inputs(self.run(tmp_path, kappa=0.8)) != first


def test_the_limits_of_kappa_hold_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    p = np.array([0.09, 0.01, 0.01, 0.89])
    true = (0.98 - (0.1 * 0.1 + 0.9 * 0.9)) / (1 - (0.1 * 0.1 + 0.9 * 0.9))
    held = 0
    for _ in range(150):
        both, first, second, neither = (int(count) for count in chance.multinomial(200, p))
        (item,) = label_agreement(*of_cells(both, first, second, neither))
        held += item.kappa.low <= true <= item.kappa.high
    assert held >= 0.9 * 150
