from datetime import date
from pathlib import Path

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from radia.dicom.facts import facts_of, read_facts
from radia.errors import Reason, Refusal


def header(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


class TestFacts:
    def test_of_an_empty_header_are_all_unknown(self) -> None:
        assert set(vars(facts_of(Dataset())).values()) == {None}

    def test_are_read_as_the_standard_writes_them(self) -> None:
        facts = facts_of(header(Modality="dx", ViewPosition=" PA ", PatientSex="f", StudyDate="20260131", Rows=512))
        assert (facts.modality, facts.view, facts.sex, facts.rows) == ("DX", "PA", "F", 512)
        assert facts.study_date == date(2026, 1, 31)

    @pytest.mark.parametrize(
        ("text", "years"),
        [("045Y", 45), ("018M", 1), ("003W", 0), ("400D", 1), ("090Y", 90), ("104Y", 90), ("45", None), ("", None)],
    )
    def test_give_the_age_in_whole_years_and_none_above_90(self, text: str, years: int | None) -> None:
        dataset = Dataset()
        dataset.add_new("PatientAge", "LO", text)
        assert facts_of(dataset).age == years

    @pytest.mark.parametrize("text", ["2026013", "20260231", "2026-01-31", ""])
    def test_do_not_guess_a_date(self, text: str) -> None:
        dataset = Dataset()
        dataset.add_new("StudyDate", "LO", text)
        assert facts_of(dataset).study_date is None

    def test_of_sex_are_those_of_the_standard(self) -> None:
        assert [facts_of(header(PatientSex=sex)).sex for sex in ("M", "O", "X")] == ["M", "O", None]

    def test_of_no_dicom_file_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.dcm").write_bytes(b"no")
        with pytest.raises(Refusal) as caught:
            read_facts(tmp_path / "x.dcm")
        assert caught.value.reason is Reason.NOT_DICOM

    def test_that_pydicom_cannot_convert_are_a_refusal(self) -> None:
        dataset = Dataset()
        dataset[0x00280010] = RawDataElement(Tag(0x00280010), "U\0", 2, b"ab", 0, False, True)
        with pytest.raises(Refusal) as caught:
            facts_of(dataset)
        assert caught.value.reason is Reason.UNREADABLE
