from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.findings import FINDINGS
from radia.labels import link, link_tables, merge_reads, origin_column, read_label_table, report_cues, with_doubt

NAMES = Pseudonymizer(bytes(range(32)))


def labels(rows: dict[str, dict[str, float]], key: str = "id") -> pd.DataFrame:
    """A table of labels: by id, the findings that are not blank."""
    table = pd.DataFrame({finding: [row.get(finding, np.nan) for row in rows.values()] for finding in FINDINGS})
    return table.assign(**{key: list(rows)})[[key, *FINDINGS]].astype(dict.fromkeys(FINDINGS, float))


def manifest(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """(accession number, study, patient) of each image."""
    return pd.DataFrame(
        [{"accession": NAMES.accession(number) or None, "study": study, "patient": who} for number, study, who in rows]
    )


def write(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path, index=False)
    return path


class TestReadLabelTable:
    def test_takes_any_id_column_and_any_order_of_findings(self, tmp_path: Path) -> None:
        table = labels({"0017": {"Edema": 1, "Fracture": -1}}, key="AccessionNumber")
        path = write(tmp_path / "l.csv", table[["AccessionNumber", *reversed(FINDINGS)]])
        pd.testing.assert_frame_equal(read_label_table(path), labels({"0017": {"Edema": 1, "Fracture": -1}}))

    def test_names_an_unknown_finding(self, tmp_path: Path) -> None:
        path = write(tmp_path / "l.csv", labels({"1": {}}).rename(columns={"Edema": "Oedema"}))
        with pytest.raises(UnknownFinding, match="'Oedema'; expected one of"):
            read_label_table(path)

    def test_does_not_quote_what_stands_where_a_header_should_be(self, tmp_path: Path) -> None:
        path = write(tmp_path / "l.csv", labels({"1": {}}).rename(columns={"Edema": "RAMQ GAUA 9907 1313"}))
        with pytest.raises(UnknownFinding) as caught:
            read_label_table(path)
        assert "GAUA" not in str(caught.value)

    def test_names_missing_findings(self, tmp_path: Path) -> None:
        path = write(tmp_path / "l.csv", labels({"1": {}}).drop(columns=["Edema", "Fracture"]))
        with pytest.raises(LabelError, match="lacks the columns Edema, Fracture"):
            read_label_table(path)

    @pytest.mark.parametrize("value", ["2", "0.5", "yes", "-2"])
    def test_refuses_other_values_than_1_0_minus_1_and_blank(self, tmp_path: Path, value: str) -> None:
        path = write(tmp_path / "l.csv", labels({"1": {}}).astype({"Edema": object}).assign(Edema=value))
        with pytest.raises(BadLabelValue):
            read_label_table(path)

    def test_refuses_a_doubled_id_without_quoting_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "l.csv", pd.concat([labels({"V1234": {}}), labels({"V1234": {}})]))
        with pytest.raises(UnmatchedIds, match="1 ids stand there more than once") as caught:
            read_label_table(path)
        assert "V1234" not in str(caught.value)


class TestLink:
    def test_goes_over_the_pseudonym_of_the_accession_number(self) -> None:
        linked = link(
            labels({"V1": {"Edema": 1}, " v2 ": {"Edema": 0}}), NAMES, manifest(("V1", "S1", "P1"), ("V2", "S2", "P2"))
        )
        assert linked.frame["study"].tolist() == ["S1", "S2"]
        assert linked.frame["Edema"].tolist() == [1, 0]
        assert list(linked.frame.columns[:15]) == ["study", *FINDINGS]

    def test_counts_what_has_no_partner_on_either_side(self) -> None:
        linked = link(
            labels({"V1": {}, "V7": {}, "V8": {}}),
            NAMES,
            manifest(("V1", "S1", "P1"), ("V3", "S3", "P1"), ("", "S4", "P2")),
        )
        assert linked.counts == {
            "labelled_studies": 1,
            "rows": 3,
            "rows_without_image": 2,
            "studies_without_label": 2,
        }

    def test_gives_one_row_to_a_study_of_several_images(self) -> None:
        linked = link(labels({"V1": {"Edema": 1}}), NAMES, manifest(("V1", "S1", "P1"), ("V1", "S1", "P1")))
        assert linked.frame["study"].tolist() == ["S1"]

    def test_labels_every_study_of_one_order_of_a_patient(self) -> None:
        linked = link(labels({"V1": {"Edema": 1}}), NAMES, manifest(("V1", "S1", "P1"), ("V1", "S2", "P1")))
        assert linked.frame["study"].tolist() == ["S1", "S2"]
        assert linked.rows_without_image == 0

    def test_gives_a_number_that_two_patients_share_to_neither(self) -> None:
        table = labels({"V1": {"Edema": 1}, "V2": {}})
        linked = link(table, NAMES, manifest(("V1", "S1", "P1"), ("V1", "S2", "P2"), ("V2", "S3", "P3")))
        assert linked.frame["study"].tolist() == ["S3"]
        assert linked.rows_without_image == 1

    def test_is_uncertain_where_two_orders_of_a_study_contradict_each_other(self) -> None:
        table = labels({"V1": {"Edema": 1, "Fracture": 1}, "V2": {"Edema": 0, "Fracture": 1, "Pneumonia": 0}})
        row = link(table, NAMES, manifest(("V1", "S1", "P1"), ("V2", "S1", "P1"))).frame.iloc[0]
        assert (row["Edema"], row["Fracture"], row["Pneumonia"]) == (-1, 1, 0)
        assert np.isnan(row["Cardiomegaly"])

    def test_refuses_a_table_of_which_no_row_matches(self) -> None:
        with pytest.raises(LabelError, match="another hospital's"):
            link(labels({"X1": {}, "X2": {}}), NAMES, manifest(("V1", "S1", "P1")))

    def test_says_where_a_label_comes_from(self) -> None:
        row = link(labels({"V1": {"Edema": 1}}), NAMES, manifest(("V1", "S1", "P1"))).frame.iloc[0]
        assert row[origin_column("Edema")] == "given"
        assert row[origin_column("Fracture")] is None


class TestLinkTables:
    def test_of_no_file_gives_no_label_and_no_error(self) -> None:
        linked = link_tables([], NAMES, manifest(("V1", "S1", "P1")))
        assert linked.frame.empty
        assert linked.counts["studies_without_label"] == 1

    def test_takes_the_later_of_two_files_cell_by_cell(self, tmp_path: Path) -> None:
        import os

        first = write(tmp_path / "b.labels.csv", labels({"V1": {"Edema": 1, "Fracture": 1}}))
        second = write(tmp_path / "a.labels.csv", labels({"V1": {"Edema": 0}}))
        os.utime(first, (1, 1))
        row = link_tables([second, first], NAMES, manifest(("V1", "S1", "P1"))).frame.iloc[0]
        assert (row["Edema"], row["Fracture"]) == (0, 1)

    def test_prefers_a_given_label_to_that_of_a_report(self, tmp_path: Path) -> None:
        reports = pytest.importorskip("radia.reports")
        assert reports
        (tmp_path / "a.reports.csv").write_text(
            'AccessionNumber,Report\nV1,"Large left pleural effusion. No pneumothorax."\n'
        )
        write(tmp_path / "b.labels.csv", labels({"V1": {"Pleural Effusion": 0}}))
        row = link_tables(sorted(tmp_path.glob("*.csv")), NAMES, manifest(("V1", "S1", "P1"))).frame.iloc[0]
        assert (row["Pleural Effusion"], row[origin_column("Pleural Effusion")]) == (0, "given")
        assert (row["Pneumothorax"], row[origin_column("Pneumothorax")]) == (0, "report")

    def test_names_the_file_that_is_another_hospitals_even_beside_one_that_is_not(self, tmp_path: Path) -> None:
        own = write(tmp_path / "own.labels.csv", labels({"V1": {"Edema": 1}, "V7": {}}))
        other = write(tmp_path / "other.labels.csv", labels({"X1": {"Edema": 1}, "X2": {"Edema": 0}}))
        with pytest.raises(LabelError, match=r"none of the 2 rows of other\.labels\.csv.*another hospital's"):
            link_tables([own, other], NAMES, manifest(("V1", "S1", "P1")))
        assert link_tables([own], NAMES, manifest(("V1", "S1", "P1"))).counts["rows_without_image"] == 1


class TestMergeReads:
    def test_puts_a_read_in_place_of_a_given_label_and_says_so(self) -> None:
        given = labels({"S1": {"Edema": 1, "Fracture": 0}}, key="study")
        merged = merge_reads(given, labels({"S1": {"Edema": 0}}, key="study")).iloc[0]
        assert (merged["Edema"], merged[origin_column("Edema")]) == (0, "read")
        assert (merged["Fracture"], merged[origin_column("Fracture")]) == (0, "given")
        assert merged[origin_column("Pneumonia")] is None

    def test_keeps_the_origin_that_is_known(self) -> None:
        given = labels({"S1": {"Edema": 1}}, key="study").assign(**{origin_column("Edema"): "report"})
        assert merge_reads(given, None)[origin_column("Edema")].tolist() == ["report"]

    def test_adds_a_study_that_had_only_reads(self) -> None:
        given = labels({"S2": {"Edema": 1}}, key="study")
        merged = merge_reads(given, labels({"S1": {"Edema": 0}}, key="study"))
        assert merged["study"].tolist() == ["S1", "S2"]

    def test_of_no_reads_changes_nothing(self) -> None:
        given = labels({"S1": {"Edema": 1}, "S2": {}}, key="study")
        pd.testing.assert_frame_equal(merge_reads(given, None)[["study", *FINDINGS]], given)


class TestCues:
    def test_names_what_gave_each_label_and_no_word(self) -> None:
        from radia.reports import label_with_evidence

        texts = ["Pas d'épanchement pleural. Cardiomégalie.", "No pneumothorax. Possible edema.", ""]
        labelled = label_with_evidence(pd.DataFrame({"id": ["a", "b", "c"], "text": texts}))
        cues = report_cues(labelled.labels, labelled.evidence).set_index("id")
        assert cues["language"].tolist() == ["fr", "en", "unknown"]
        assert cues.loc["a", "Cardiomegaly cue"] == "plain statement"
        assert cues.loc["a", "Pleural Effusion cue"] == "negation ahead"
        assert cues.loc["a", "Edema cue"] == "not mentioned"
        assert cues.loc["b", "Edema cue"] == "doubt near"

    def test_come_with_the_labels_by_study(self, tmp_path: Path) -> None:
        reports = tmp_path / "1.reports.csv"
        reports.write_text("AccessionNumber,Report\nA1,Cardiomégalie.\nA9,No pneumothorax.\n")
        linked = link_tables([reports], NAMES, manifest(("A1", "S1", "P1")))
        assert linked.evidence is not None
        assert linked.evidence["study"].tolist() == ["S1"]
        assert linked.evidence["language"].tolist() == ["fr"]


class TestDoubt:
    TARGETS = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    WEIGHTS = np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)
    PRESENT = np.array([[0.9, 0.3], [0.5, 0.2]])

    def test_changes_nothing_unless_it_is_asked_for(self) -> None:
        targets, weights = with_doubt(self.TARGETS, self.WEIGHTS, self.PRESENT)
        np.testing.assert_array_equal(targets, self.TARGETS)
        np.testing.assert_array_equal(weights, self.WEIGHTS)

    def test_softens_targets_towards_what_is_probable(self) -> None:
        targets, weights = with_doubt(self.TARGETS, self.WEIGHTS, self.PRESENT, soft=0.5)
        np.testing.assert_allclose(targets, [[0.95, 0.15], [0.25, 0.6]], rtol=1e-6)
        np.testing.assert_array_equal(weights, self.WEIGHTS)

    def test_weighs_a_label_by_how_likely_it_is_right(self) -> None:
        targets, weights = with_doubt(self.TARGETS, self.WEIGHTS, self.PRESENT, weigh=True)
        np.testing.assert_array_equal(targets, self.TARGETS)
        np.testing.assert_allclose(weights, [[0.9, 0.7], [0.0, 0.2]], rtol=1e-6)
