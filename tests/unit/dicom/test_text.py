"""Text that may stand and text that may not, of forms that nobody planted elsewhere."""

from __future__ import annotations

import base64

import pytest

from radia.dicom.identifiers import Identifiers
from radia.dicom.text import in_vocabulary, passes_scan

NOBODY = Identifiers([])
OF_THE_PATIENT = Identifiers(
    ["Archambault", "Geneviève", "4118592", "ARCG 6155 1213", "514-555-0188", "5145550188", "19610513"],
    short=["Roy", "4471"],
    names=["Archambault", "Geneviève"],
)

TELEPHONES = [
    "tél. 514 555-1234", "(450) 555-9876", "450.555.9876", "1 800 555 0199", "poste 4431", "cell: 438-555-0101",
    "+1 (514) 555 0101", "5145550101", "514 555 01 01", "555-0101", "rejoindre au 819/555-0142", "51 45 55 01 01",
]  # fmt: skip
INSURANCE = [
    "TREM 5003 1214", "TREM50031214", "TREM-5003-1214", "trem 5003 1214", "NAM TREM 5003 1214", "TREM.5003.1214",
    "ROYL 6155-1213", "NAS 123 456 789", "123-456-789",
]  # fmt: skip
DATES = [
    "né le 3 mars 1961", "née le 03/03/1961", "3 mars 61", "vu le 3 mars", "1er avril 1950", "avril 1950", "1961-03-03",
    "03.03.1961", "3-3-61", "March 3rd, 1961", "3rd of March 1961", "Mar 3 1961", "3MAR1961", "03MAR61", "1961 mars 3",
    "03 03 1961", "19610303", "DDN 1961", "born 1961", "12 févr. 2024", "12 août", "sept. 2023", "Feb 2 '61",
    "le 14 juillet", "2024/2/3", "3 déc 61",
]  # fmt: skip
PEOPLE = [
    "Dr Gagnon", "Dre. Hélène Roy", "M. Tremblay", "Mme Roy", "Mr. Smith", "Mrs Jones", "Jean Tremblay",
    "TREMBLAY JEAN", "Tremblay, Jean", "TREMBLAY^JEAN", "inf. Julie", "par J. Tremblay", "fils de Marie", "lu par Côté",
    "patient: Luc", "prénom Luc", "thorax PA de Jean-Guy Lavoie", "signed by smith", "appeler Josée",
]  # fmt: skip
PLACES = ["1234 rue Beaubien", "12, avenue du Parc", "boul. LaSalle app 3", "H2X 1Y4", "h2x1y4", "J4K-2T1", "casier 12"]
ADDRESSES = ["jean.tremblay@chum.qc.ca", "http://pacs/1", "WWW.CHUM.CA", "voir https://x.ca"]
NUMBERS = ["dossier 4118", "MRN 41", "#4118", "no 4118", "N° 12", "12345", "411 85 92", "4 1 1 8 5 9 2"]
AGES = ["97 ans", "102 years old", "95yo", "femme de 91 ans"]
HIDDEN = [base64.b64encode("Tremblay Hélène 2".encode()).decode(), "Thorax\nPA", "Thorax\x1b$B", "A1B2C3D4E5F6"]

ORDINARY = [
    "Thorax PA debout", "RX thorax 2 incidences", "Poumons PA et latéral", "Gril costal gauche", "PULMONAIRE FACE",
    "CHEST PA AND LATERAL", "Portable chest AP", "Thorax 1 incidence couché", "XR CHEST 2 VIEWS", "W 4096 L 2048",
    "Pulmonaire face et profil gauche", "Rayons X - poumons (2 vues)", "Contrôle post-op", "toux depuis 3 jours",
    "Abdomen couché", "Thorax portable aux soins intensifs", "Épanchement pleural droit?", "FLUOROSPOT Compact",
    "DigitalDiagnost", "bordures sacro-iliaques", "pneumonie base gauche", "AP 120 kV 2 mAs", "Thorax PA/LAT",
]  # fmt: skip


@pytest.mark.parametrize(
    "text", [*TELEPHONES, *INSURANCE, *DATES, *PEOPLE, *PLACES, *ADDRESSES, *NUMBERS, *AGES, *HIDDEN]
)
def test_the_pattern_of_an_identifier_is_seen_without_knowing_whose(text: str) -> None:
    assert not passes_scan(text, NOBODY)


@pytest.mark.parametrize("text", ["3-3-61", "13/04/50", "411 85 92", "Thorax\nPA", "Thorax 1234", "PA\0"])
def test_no_vocabulary_makes_a_date_a_number_or_two_lines_stand(text: str) -> None:
    assert not in_vocabulary(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_said_of_radiographs_every_day_stays(text: str) -> None:
    assert passes_scan(text, OF_THE_PATIENT)


@pytest.mark.parametrize(
    "text",
    [
        "archambault", "ARCHAMBAULT", "Genevieve", "GENEVIÈVE", "thorax archambault", "tluabmahcra", "archam",
        "A R C H A M B A U L T", "archam-bault", "genev", "roy", "4471", "GenevieveArchambault", "xarchambaultx",
    ],
)  # fmt: skip
def test_the_patient_is_known_in_any_writing(text: str) -> None:
    assert not passes_scan(text, OF_THE_PATIENT)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["4118592"], True), (["4118", "592"], True), (["4.118592E6"], True), (["0.4118592"], True), (["4471"], True),
        (["44.71"], False), (["1.4471"], False), (["0.139", "0.139"], False), (["4118"], False),
    ],
)  # fmt: skip
def test_numbers_are_held_against_the_patients(values: list[str], named: bool) -> None:
    assert OF_THE_PATIENT.numbered_in(values) is named


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be", "cp850", "gb18030", "mac-roman"])
@pytest.mark.parametrize("form", ["Geneviève", "GENEVIÈVE", "geneviève", "ARCHAMBAULT", "archambault"])
def test_bytes_are_searched_in_every_encoding(encoding: str, form: str) -> None:
    assert OF_THE_PATIENT.stand_in(b"\x01\x02" + form.encode(encoding) + b"\x03\x04")


def test_bytes_without_the_patient_hold_nothing() -> None:
    assert not OF_THE_PATIENT.stand_in(bytes(range(256)) * 4)
    assert not OF_THE_PATIENT.stand_in("Thorax PA debout".encode("utf-16-le"))
