"""What is no radiograph: cleaned where an option says how, refused by name otherwise."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from radia.dicom import container
from radia.dicom.deidentify import CleanFile, Engine
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings
from tests.spec.hard_files import Person, _code, _ordinary, _reference, _series, leaked
from tests.spec.hiding_elsewhere import DISGUISES, STRANGERS

KEY = bytes(32)
PERSON = Person.invented(5)
_PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "BodyPartExamined", "ViewPosition",
)  # fmt: skip


def engine(**options: bool) -> Engine:
    return Engine(KEY, DeidentifySettings(**options))


def without_pixels(sop_class: str, modality: str) -> Dataset:
    dataset = _ordinary(PERSON)
    for name in _PIXELS:
        delattr(dataset, name)
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    return dataset


def raw_of(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = container.EXPLICIT
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def cleaned(dataset: Dataset, **options: bool) -> tuple[Dataset, CleanFile, bytes]:
    clean = engine(**options).deidentify_file(raw_of(dataset), "0" * 64)
    out = b"".join(map(bytes, clean.pieces))
    return pydicom.dcmread(BytesIO(out)), clean, out


def _item(relation: str, kind: str, concept: Dataset, **values: object) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = relation, kind, Sequence([concept])
    for name, value in values.items():
        setattr(item, name, value)
    return item


def report() -> Dataset:
    """A text report: findings, a measure, an image, and its people."""
    dataset = without_pixels("1.2.840.10008.5.1.4.1.1.88.22", "SR")
    dataset.ReferencedPerformedProcedureStepSequence = Sequence()
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "VERIFIED"
    dataset.ConceptNameCodeSequence = Sequence([_code("18782-3", "LN", "Radiology Study observation")])
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = PERSON.doctor, f"Clinique {PERSON.last}"
    observer.VerificationDateTime = PERSON.date + "101500"
    observer.VerifyingObserverIdentificationCodeSequence = Sequence()
    dataset.VerifyingObserverSequence = Sequence([observer])
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", Sequence([_code("mm", "UCUM", "mm")])
    dataset.ContentSequence = Sequence(
        [
            _item("HAS OBS CONTEXT", "PNAME", _code("121008", "DCM", "Person Observer Name"), PersonName=PERSON.doctor),
            _item("HAS OBS CONTEXT", "TEXT", _code("121022", "DCM", "Accession Number"), TextValue=PERSON.accession),
            _item("CONTAINS", "TEXT", _code("121071", "DCM", "Finding"), TextValue="Cardiomegalie"),
            _item("CONTAINS", "TEXT", _code("121073", "DCM", "Impression"), TextValue=f"Mme {PERSON.last} va bien"),
            _item("CONTAINS", "NUM", _code("1483009", "SCT", "Angle"), MeasuredValueSequence=Sequence([measured])),
            _item("CONTAINS", "DATE", _code("121125", "DCM", "DateTime of Recording"), Date=PERSON.date),
            _item(
                "CONTAINS", "IMAGE", _code("113795", "DCM", "Acquired Image"),
                ReferencedSOPSequence=Sequence([_reference(PERSON.instance)]),
            ),
            _item(
                "CONTAINS", "CODE", _code("121071", "DCM", "Finding"),
                ConceptCodeSequence=Sequence([_code("24028007", "SCT", f"Right, {PERSON.last}")]),
            ),
        ]
    )  # fmt: skip
    return dataset


class TestAReport:
    def test_is_refused_without_the_option(self) -> None:
        with pytest.raises(Refusal, match="clean_structured_content") as refused:
            cleaned(report())
        assert refused.value.reason is Reason.NOT_AN_IMAGE_TO_CLEAN

    def test_loses_its_people_and_keeps_its_findings(self) -> None:
        after, clean, out = cleaned(report(), clean_structured_content=True, clean_descriptors=True)
        assert leaked(out, PERSON.secrets) == []
        texts = [item.TextValue for item in after.ContentSequence if item.ValueType == "TEXT"]
        assert texts == ["Cardiomegalie", "REMOVED"]
        numbers = [item for item in after.ContentSequence if item.ValueType == "NUM"]
        assert numbers[0].MeasuredValueSequence[0].NumericValue == 12.5
        assert clean.outcome.outcome == "clean"

    def test_says_what_a_known_code_means_in_the_words_of_the_standard(self) -> None:
        after, _, _ = cleaned(report(), clean_structured_content=True)
        coded = next(item for item in after.ContentSequence if item.ValueType == "CODE")
        assert coded.ConceptCodeSequence[0].CodeValue == "24028007"
        assert coded.ConceptCodeSequence[0].CodeMeaning == "Right"

    def test_points_at_the_clean_image(self) -> None:
        after, _, _ = cleaned(report(), clean_structured_content=True)
        image = next(item for item in after.ContentSequence if item.ValueType == "IMAGE")
        expected = engine().pseudonymizer.uid(PERSON.instance)
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == expected

    def test_states_no_cleaning_of_pixels(self) -> None:
        after, _, _ = cleaned(report(), clean_structured_content=True)
        codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113104", "113107", "113108"]


def presentation() -> Dataset:
    """A presentation state with a line, a text and a layer."""
    dataset = without_pixels("1.2.840.10008.5.1.4.1.1.11.1", "PR")
    dataset.ContentLabel, dataset.ContentDescription = "ANNOTATION", PERSON.last
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = PERSON.date, "101500"
    dataset.ContentCreatorName = PERSON.doctor
    dataset.ReferencedSeriesSequence = Sequence([_series(PERSON.series, PERSON.instance)])
    line, text, marks, layer = Dataset(), Dataset(), Dataset(), Dataset()
    line.GraphicAnnotationUnits, line.GraphicDimensions, line.NumberOfGraphicPoints = "PIXEL", 2, 2
    line.GraphicData, line.GraphicType, line.GraphicFilled = [1.0, 2.0, 30.0, 40.0], "POLYLINE", "N"
    text.UnformattedTextValue, text.AnchorPoint, text.AnchorPointVisibility = (
        f"{PERSON.last} {PERSON.phone}",
        [1, 2],
        "N",
    )
    text.AnchorPointAnnotationUnits = "PIXEL"
    marks.GraphicLayer, marks.TextObjectSequence, marks.GraphicObjectSequence = (
        "LAYER1",
        Sequence([text]),
        Sequence([line]),
    )
    layer.GraphicLayer, layer.GraphicLayerOrder, layer.GraphicLayerDescription = "LAYER1", 1, f"par {PERSON.doctor}"
    dataset.GraphicAnnotationSequence, dataset.GraphicLayerSequence = Sequence([marks]), Sequence([layer])
    dataset.PresentationLUTShape = "IDENTITY"
    return dataset


class TestAPresentationState:
    def test_is_refused_without_the_option(self) -> None:
        with pytest.raises(Refusal, match="clean_graphics"):
            cleaned(presentation())

    @pytest.mark.parametrize("descriptors", [False, True])
    def test_keeps_its_lines_and_loses_its_words(self, descriptors: bool) -> None:
        after, _, out = cleaned(presentation(), clean_graphics=True, clean_descriptors=descriptors)
        assert leaked(out, PERSON.secrets) == []
        marks = after.GraphicAnnotationSequence[0]
        assert marks.GraphicObjectSequence[0].GraphicData == [1.0, 2.0, 30.0, 40.0]
        assert marks.TextObjectSequence[0].UnformattedTextValue == "REMOVED"
        assert after.GraphicLayerSequence[0].GraphicLayer == marks.GraphicLayer == "LAYER1"


SAID = {name: text(PERSON) for name, text in DISGUISES.items()} | STRANGERS


@pytest.mark.parametrize("name", SAID)
def test_no_disguise_stands_in_a_report_or_in_a_presentation_state(name: str) -> None:
    said = SAID[name]
    written, drawn = report(), presentation()
    written.ContentSequence[2].TextValue = said
    marks = drawn.GraphicAnnotationSequence[0].TextObjectSequence[0]
    marks.UnformattedTextValue = drawn.ContentDescription = said
    drawn.GraphicLayerSequence[0].GraphicLayerDescription = said
    everything = {"clean_structured_content": True, "clean_graphics": True, "clean_descriptors": True}
    for dataset in (written, drawn):
        _, _, out = cleaned(dataset, **everything)
        assert leaked(out, PERSON.secrets | {said}) == []


def test_a_selection_of_key_images_loses_its_reasons_and_keeps_its_images() -> None:
    selection = without_pixels("1.2.840.10008.5.1.4.1.1.88.59", "KO")
    selection.ValueType, selection.ContinuityOfContent = "CONTAINER", "SEPARATE"
    selection.ConceptNameCodeSequence = Sequence([_code("113000", "DCM", f"Of Interest to {PERSON.doctor}")])
    described = _item(
        "CONTAINS", "TEXT", _code("113012", "DCM", "Key Object Description"), TextValue=f"pour {PERSON.doctor}"
    )
    evidence = Dataset()
    evidence.StudyInstanceUID = PERSON.study
    evidence.ReferencedSeriesSequence = Sequence([_series(PERSON.series, PERSON.instance)])
    selection.ContentSequence = Sequence([described])
    selection.CurrentRequestedProcedureEvidenceSequence = Sequence([evidence])
    after, _, out = cleaned(selection, clean_structured_content=True)
    assert leaked(out, PERSON.secrets) == []
    assert after.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    series = after.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    expected = engine().pseudonymizer.uid(PERSON.instance)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == expected


def document() -> Dataset:
    dataset = without_pixels("1.2.840.10008.5.1.4.1.1.104.1", "DOC")
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "application/pdf", b"%PDF-1.7 \n"
    return dataset


def index_of_files() -> Dataset:
    dataset = without_pixels("1.2.840.10008.1.3.10", "OT")
    dataset.FileSetID, dataset.DirectoryRecordSequence = "PACS", Sequence()
    return dataset


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (document(), "document"),
        (index_of_files(), "index of files"),
        (without_pixels(f"1.2.3.{PERSON.record}", "CR"), "private class"),
        (without_pixels("1.2.840.10008.5.1.4.1.1.9.1.1", "ECG"), "no pixel data"),
    ],
    ids=["an encapsulated document", "an index of files", "a private class", "a waveform"],
)
def test_what_cannot_be_cleaned_is_refused_by_name_and_without_an_identifier(dataset: Dataset, reason: str) -> None:
    everything = {"clean_structured_content": True, "clean_graphics": True, "clean_descriptors": True}
    with pytest.raises(Refusal) as refused:
        cleaned(dataset, **everything)
    assert reason in str(refused.value)
    assert leaked(str(refused.value).encode(), PERSON.secrets) == []
