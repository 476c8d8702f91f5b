"""The rules of data quality on small tables with one defect each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import SettingsError
from radia.findings import FINDINGS
from radia.quality import PICTURE_COLUMNS, QualityReport, RuleResult, _shifts, check, load_rules
from radia.settings import QualitySettings

SETTINGS = QualitySettings()
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


def pseudonym(kind: str, number: int) -> str:
    letters = []
    for _ in range(16):
        number, index = divmod(number, len(LETTERS))
        letters.append(LETTERS[index])
    return kind + "".join(letters)


def manifest_of(images: int = 60) -> pd.DataFrame:
    """Two batches of two sites, two images a patient, nothing wrong."""
    number = np.arange(images)
    return pd.DataFrame(
        {
            "image": [pseudonym("I", n) for n in number],
            "study": [pseudonym("S", n) for n in number],
            "patient": [pseudonym("P", n // 2) for n in number],
            "accession": [pseudonym("N", n) for n in number],
            "batch": np.where(number % 4 < 2, "HND-20260101-1", "HVD-20260101-1"),
            "site": np.where(number % 4 < 2, "HND", "HVD"),
            "view": np.where(number % 3 == 0, "AP", "PA"),
            "sex": pd.Categorical(np.where(number % 2, "F", "M")),
            "age": pd.array(20 + number % 70, dtype="Int64"),
            "age_band": "40-49",
            "manufacturer": "Rayons",
            "rows": 1024,
            "columns": 1024,
            "source_sha256": [f"{n:064x}" for n in number],
            "pixel_sha256": [f"{n:064x}" for n in number],
            "shard": "0.npy",
            "row": number,
            "exposure": 0.5 + 0.01 * (number % 7),
            "contrast": 0.2 + 0.01 * (number % 5),
            "saturation": 0.02,
            "perceptual_hash": [f"{n:016x}" for n in number],
        }
    )


def labels_of(manifest: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"study": manifest["study"].unique()})
    for column, finding in enumerate(FINDINGS):
        order = np.arange(len(table)) + column
        table[finding] = np.select([order % 5 == 0, order % 7 == 0, order % 3 == 0], [np.nan, -1.0, 1.0], 0.0)
    others = [finding for finding in FINDINGS if finding not in ("No Finding", "Support Devices")]
    table["No Finding"] = np.where((table[others] == 1).any(axis=1), 0.0, 1.0)
    table.loc[0, others] = 0.0
    table.loc[0, "No Finding"] = 1.0
    return table


@pytest.fixture
def manifest() -> pd.DataFrame:
    return manifest_of()


@pytest.fixture
def labels(manifest: pd.DataFrame) -> pd.DataFrame:
    return labels_of(manifest)


def failures(report: QualityReport) -> dict[str, str]:
    return {result.name: result.severity for result in report.results if not result.passed}


def result_of(report: QualityReport, name: str) -> RuleResult:
    return next(result for result in report.results if result.name == name)


class TestSoundData:
    def test_every_rule_holds(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        report = check(manifest, labels, settings=SETTINGS)
        assert failures(report) == {}
        assert not report.blocking
        assert len(report.results) >= 40

    def test_twice_gives_the_same_bytes_and_leaves_the_frames_alone(
        self, manifest: pd.DataFrame, labels: pd.DataFrame
    ) -> None:
        before = manifest.copy(), labels.copy()
        reports = [check(manifest, labels, settings=SETTINGS) for _ in range(2)]
        assert reports[0].to_json() == reports[1].to_json()
        assert QualityReport.from_json(reports[0].to_json()) == reports[0]
        pd.testing.assert_frame_equal(manifest, before[0])
        pd.testing.assert_frame_equal(labels, before[1])


def _set(column: str, value: object, rows: int | range = 3):  # type: ignore[no-untyped-def]
    def seed(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        frame[column] = frame[column].astype(object)
        frame.loc[frame.index[[rows] if isinstance(rows, int) else list(rows)], column] = value
        return frame

    return seed


# A check takes a second, so that defects which do not hide one another share a frame: name, severity, how to seed.
ROW_DEFECTS = [
    ("image ids unique", "critical", lambda m: pd.concat([m, m.iloc[[3]]], ignore_index=True)),
    ("image ids given", "critical", _set("image", None, 4)),
    ("images by pseudonym", "critical", _set("image", "4711", 5)),
    ("study ids given", "critical", _set("study", None, 6)),
    ("studies by pseudonym", "critical", _set("study", "1.2.840.10008.1", 7)),
    ("patient ids given", "critical", _set("patient", None, 8)),
    ("patients by pseudonym", "critical", _set("patient", "TREMBLAY^JEAN", 9)),
    ("batches given", "critical", _set("batch", None, 10)),
    ("sites given", "critical", _set("site", None, 11)),
    ("source digests", "critical", _set("source_sha256", "abc", 12)),
    ("source digests given", "critical", _set("source_sha256", None, 13)),
    ("pixel digests given", "critical", _set("pixel_sha256", None, 14)),
    ("sex known values", "critical", _set("sex", "Mme", 15)),
    ("age range", "critical", _set("age", 93, 16)),
    ("frontal views", "critical", _set("view", "LATERAL", 17)),
    ("rows range", "warning", _set("rows", 64, 18)),
    ("columns range", "warning", _set("columns", 20000, 19)),
    ("exposure range", "warning", _set("exposure", 0.01, 20)),
    ("contrast range", "warning", _set("contrast", 0.001, 21)),
    ("saturation range", "warning", _set("saturation", 0.9, 22)),
    ("one picture one patient", "warning", _set("perceptual_hash", "f" * 16, range(24, 28))),
]
MASS_DEFECTS = [
    ("age mostly given", "warning", _set("age", None, range(40))),
    ("exposure mostly in range", "critical", _set("exposure", 0.99, range(10))),
    ("contrast mostly in range", "critical", _set("contrast", 0.001, range(10))),
    ("saturation mostly in range", "critical", _set("saturation", 0.9, range(10))),
    ("exposure drift", "warning", lambda m: m.assign(exposure=m["exposure"] + 0.2 * (m["site"] == "HND"))),
    ("contrast drift", "warning", lambda m: m.assign(contrast=m["contrast"] + 0.2 * (m["site"] == "HND"))),
    ("saturation drift", "warning", lambda m: m.assign(saturation=m["saturation"] + 0.2 * (m["site"] == "HND"))),
]
LABEL_DEFECTS = [
    ("labelled studies unique", "critical", lambda t: pd.concat([t, t.iloc[[3]]], ignore_index=True)),
    ("labelled studies given", "critical", _set("study", None, 4)),
    ("labels belong to studies", "critical", _set("study", pseudonym("S", 999), 5)),
    ("label values: Edema", "critical", _set("Edema", 2.0, 6)),
    ("label values: Fracture", "critical", _set("Fracture", "oui", 7)),
    ("no empty label rows", "warning", lambda t: t.assign(**{f: t[f].where(t.index > 9) for f in FINDINGS})),
    ("No Finding stands alone", "warning", _set("No Finding", 1.0, range(20, 40))),
    ("every finding present", "warning", lambda t: t.assign(Pneumonia=0.0)),
]
FEW_LABELS = [
    ("enough images labelled", "critical", lambda t: t.iloc[:20]),
    ("label columns", "critical", lambda t: t.drop(columns="Edema")),
]


def _seeded(frame: pd.DataFrame, defects) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    for _, _, seed in reversed(defects):
        frame = seed(frame)
    return frame


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """The rules that failed on frames with the defects above."""
    manifest = manifest_of()
    labels = labels_of(manifest)
    reports = [check(_seeded(manifest, defects), labels, settings=SETTINGS) for defects in (ROW_DEFECTS, MASS_DEFECTS)]
    reports += [check(manifest, _seeded(labels, defects), settings=SETTINGS) for defects in (LABEL_DEFECTS, FEW_LABELS)]
    return {name: severity for report in reports for name, severity in failures(report).items()}


ALL_DEFECTS = [*ROW_DEFECTS, *MASS_DEFECTS, *LABEL_DEFECTS, *FEW_LABELS]


@pytest.mark.parametrize(("rule", "severity"), [d[:2] for d in ALL_DEFECTS], ids=[d[0] for d in ALL_DEFECTS])
def test_a_seeded_defect_is_found(rule: str, severity: str, found: dict[str, str]) -> None:
    assert found[rule] == severity


class TestMissingColumns:
    def test_the_report_names_them_and_blocks(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        report = check(manifest.drop(columns=["age", "exposure"]), labels, settings=SETTINGS)
        assert result_of(report, "manifest columns").observed == "missing: age, exposure"
        assert result_of(report, "age range").observed == "the column age is missing"
        assert report.blocking

    def test_empty_tables_block_and_break_nothing(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        report = check(manifest.iloc[:0], labels.iloc[:0], settings=SETTINGS)
        assert {"enough images", "labels are there"} <= set(failures(report))

    def test_tables_without_any_column_block(self) -> None:
        report = check(pd.DataFrame(), pd.DataFrame(), settings=SETTINGS)
        assert {"manifest columns", "label columns", "enough images"} <= set(failures(report))


class TestAgainstTheSnapshotBefore:
    def test_a_changed_prevalence_is_named(self, labels: pd.DataFrame, manifest: pd.DataFrame) -> None:
        before = manifest.merge(labels, on="study").assign(Edema=1.0)
        report = check(manifest, labels, settings=SETTINGS, previous=before)
        assert failures(report) == {"prevalence steady": "warning"}
        assert result_of(report, "prevalence steady").observed.startswith("Edema (0.")

    def test_a_difference_that_chance_explains_is_none(self, labels: pd.DataFrame, manifest: pd.DataFrame) -> None:
        before = labels.iloc[:6].assign(Edema=[1.0, 0, 0, 0, 0, 0])
        assert failures(check(manifest, labels, settings=SETTINGS, previous=before)) == {}

    def test_a_site_that_vanished_is_named(self, labels: pd.DataFrame, manifest: pd.DataFrame) -> None:
        before = manifest.assign(site=np.where(manifest.index < 40, "CHX", manifest["site"]))
        report = check(manifest, labels, settings=SETTINGS, previous=before)
        assert failures(report) == {"site mix steady": "warning"}
        assert "CHX" in result_of(report, "site mix steady").observed


class TestPictures:
    def test_defects_of_pixels_warn_and_many_block(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        pictures = pd.DataFrame({"image": manifest["image"], **dict.fromkeys(PICTURE_COLUMNS, 0)})
        pictures.loc[:9, "inverted"] = 1
        pictures.loc[0, "turned"] = 1
        pictures.loc[:1, "same_picture"] = 1
        pictures = pictures.astype({"noise": float})
        pictures.loc[3, "noise"] = 0.08
        report = check(manifest, labels, settings=SETTINGS, pictures=pictures)
        assert failures(report) == {
            "few inverted images": "critical",
            "no inverted image": "warning",
            "no noisy image": "warning",
            "no turned image": "warning",
            "no picture twice": "warning",
        }
        assert result_of(report, "no turned image").observed == "1 of 60 rows differ"
        assert result_of(report, "no noisy image").observed == "1 of 60 rows differ"


class TestRefusals:
    def test_a_batch_that_lost_some_is_a_warning(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        report = check(manifest, labels, settings=SETTINGS, refused={"HND-20260101-1": 6})
        assert failures(report) == {"few refusals per batch": "warning"}
        assert result_of(report, "few refusals per batch").observed == "HND-20260101-1 (0.167)"

    def test_too_many_in_all_block(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        report = check(manifest, labels, settings=SETTINGS, refused={"HND-20260102-1": 30})
        assert failures(report)["few refusals"] == "critical"
        assert result_of(report, "few refusals").observed == "0.333"


class TestPrivacy:
    def test_no_identifier_stands_in_the_report_or_the_page(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        bad = _set("patient", "TREMBLAY^JEAN")(_set("sex", "Jeanne")(_set("age", 117)(manifest)))
        bad["comments"] = "TREMBLAY"
        bad = pd.concat([bad, bad.iloc[[5]]], ignore_index=True)
        report = check(bad, labels, settings=SETTINGS)
        page = report.write_data_docs(tmp_path).read_text()
        for column in ("image", "study", "patient", "accession", "source_sha256", "pixel_sha256", "perceptual_hash"):
            for value in bad[column].unique():
                assert value not in report.to_json()
                assert value not in page
        assert not any(word in report.to_json() + page for word in ("TREMBLAY", "Jeanne", "117"))

    def test_a_column_that_is_not_known_is_treated_as_identifying(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        own = tmp_path / "own.yaml"
        own.write_text(
            "- {name: own, table: manifest, expect: column_values_to_be_in_set, severity: warning,"
            " args: {column: comments, value_set: [fine]}, says: Comments are fine.}"
        )
        settings = QualitySettings(rules_file=str(own))
        report = check(manifest.assign(comments="TREMBLAY"), labels, settings=settings)
        assert result_of(report, "own").observed == "does not hold"

    def test_nothing_is_written_outside_and_nothing_is_said(self, tmp_path: Path) -> None:
        home, work = tmp_path / "home", tmp_path / "work"
        home.mkdir(), work.mkdir()
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from test_quality import *\n"
            "m = manifest_of(); print(len(failures(check(m, labels_of(m), settings=SETTINGS))))\n"
        )
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("0\n", "")
        assert list(home.rglob("*")) == []
        assert list(work.rglob("*")) == []


class TestOwnRules:
    def rules_file(self, tmp_path: Path, text: str) -> QualitySettings:
        path = tmp_path / "rules.yaml"
        path.write_text(text)
        return QualitySettings(rules_file=str(path))

    def test_a_hospital_may_add_replace_and_silence(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        settings = self.rules_file(
            tmp_path,
            """
- {name: adults, table: manifest, expect: column_min_to_be_between, args: {column: age, min_value: 30},
   severity: critical, says: Only adults above thirty.}
- {name: frontal views, table: manifest, expect: column_values_to_be_in_set, args: {column: view, value_set: [PA]},
   severity: warning, says: Only PA.}
- {name: age range, severity: "off"}
""",
        )
        report = check(manifest.assign(age=20), labels, settings=settings)
        assert failures(report) == {"adults": "critical", "frontal views": "warning"}
        assert result_of(report, "adults").observed == "20"
        assert result_of(report, "frontal views").observed == "20 of 60 rows differ"
        assert "age range" not in {result.name for result in report.results}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{table: manifest}", "rule 1 has no name"),
            ("{name: a, table: images, expect: x, args: {}, severity: warning, says: s}", "no table 'images'"),
            ("{name: a, table: labels, expect: x, args: {}, severity: fatal, says: s}", "severity is critical"),
            ("{name: a, table: labels, expect: x, args: {}, severity: warning}", "says is missing"),
            ("{name: a, table: labels, expect: x, args: {}, severity: warning, says: s, to: b}", "unknown to"),
            ("{name: a, table: labels, expect: x, args: {column: $nope}, severity: warning, says: s}", "quality.nope"),
        ],
    )
    def test_a_line_that_cannot_be_understood_is_named(self, line: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=message):
            load_rules(self.rules_file(tmp_path, f"- {line}"))

    @pytest.mark.parametrize(
        ("expect", "message"),
        [
            ("column_values_to_be_nice", "has no expect_column_values_to_be_nice"),
            ("column_values_to_match_regex", "args"),
        ],
    )
    def test_an_expectation_that_gx_does_not_have_or_take_is_named(
        self, expect: str, message: str, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        line = f"- {{name: a, table: manifest, expect: {expect}, args: {{colum: age}}, severity: warning, says: s}}"
        with pytest.raises(SettingsError, match=message):
            check(manifest, labels, settings=self.rules_file(tmp_path, line))

    def test_every_bound_of_the_settings_is_used(self) -> None:
        text = Path(sys.modules["radia.quality"].RULES).read_text()
        for name in QualitySettings.model_fields:
            assert name == "rules_file" or f"${name}" in text


class TestPage:
    def test_is_one_file_without_the_network(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        page = check(_set("age", 93)(manifest), labels, settings=SETTINGS).write_data_docs(tmp_path / "site")
        text = page.read_text()
        assert [path.name for path in page.parent.iterdir()] == ["index.html"]
        assert "http" not in text
        assert "Blocked: 1 critical rule failed" in text
        assert "1 of 60 rows differ" in text

    def test_escapes_what_it_shows(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        report = check(manifest.assign(site="<script>"), labels, settings=SETTINGS)
        assert "<script>" not in report.write_data_docs(tmp_path).read_text()

    def test_json_holds_no_nan(self, manifest: pd.DataFrame, labels: pd.DataFrame) -> None:
        content = json.loads(check(manifest.assign(exposure=np.nan), labels, settings=SETTINGS).to_json())
        assert content["measures"]["exposure"]["counts"] == [0] * 20


class TestShifts:
    """Each batch against all others, at once."""

    @pytest.mark.parametrize(("images", "batches", "digits"), [(600, 7, 2), (901, 12, 6), (90, 2, 6)])
    def test_are_those_of_the_plain_definition(self, images: int, batches: int, digits: int) -> None:
        rng = np.random.default_rng(images)
        values, batch = rng.normal(0.5, 0.1, images).round(digits), rng.integers(0, batches, images)
        values[::50] = np.nan
        expected = [plain_shift(values, batch == number) for number in range(batches)]
        np.testing.assert_allclose(_shifts(values, batch, batches), expected, atol=1e-9)

    def test_of_few_images_are_not_given(self) -> None:
        values, batch = np.arange(60.0), np.repeat([0, 1, 2], [25, 25, 10])
        assert np.isnan(_shifts(values, batch, 3)).tolist() == [False, False, True]


def plain_shift(values: np.ndarray, inside: np.ndarray) -> float:
    these, others = (part[~np.isnan(part)] for part in (values[inside], values[~inside]))
    spread = 1.4826 * np.median(np.abs(others - np.median(others)))
    return float(abs(np.median(these) - np.median(others)) / spread)
