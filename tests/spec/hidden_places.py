"""More hard files: where the identifiers of other hospitals, makers and character sets were found to hide.

Registers its kinds beside those of `hard_files`; whoever imports KINDS from here has them all.
"""

from __future__ import annotations

import base64
import html
import quopri
import struct
from collections.abc import Callable
from urllib.parse import quote

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from radia.dicom import container
from radia.dicom.text import plain
from tests.spec.hard_files import KINDS, SYNTAXES, HardFile, _code, _reference, _text, build, leaked, pixels, put_raw

__all__ = ["KINDS", "RENAMING", "SYNTAXES", "build", "leaked", "pixels"]

KEPT_TEXT = ("Manufacturer", "ConvolutionKernel", "StudyDescription", "ImageComments")
"""Two stay under every option where nothing speaks against their text, two where descriptors are cleaned."""


RENAMING: set[str] = set()
"""Kinds that give the patient another name or number, which others would not know: each stands alone."""


def _kind(function: Callable[[HardFile], None]) -> Callable[[HardFile], None]:
    KINDS[function.__name__.strip("_").replace("_", " ")] = function
    return function


def _renaming(function: Callable[[HardFile], None]) -> Callable[[HardFile], None]:
    RENAMING.add(function.__name__.strip("_").replace("_", " "))
    return _kind(function)


def _known_before(file: HardFile) -> None:
    """What another kind may have written already stays the patient's: their former name and number."""
    held = file.image.get("OtherPatientNames") or []
    former = [str(name) for name in (held if isinstance(held, list | MultiValue) else [held])]
    file.image.OtherPatientNames = [*former, f"{file.person.last}^{file.person.first}"]
    file.image.add_new(0x00101000, "LO", file.person.record)


def _called(file: HardFile, last: str, first: str) -> None:
    """Gives the patient another name, in the file and among the secrets."""
    _known_before(file)
    file.person.last, file.person.first = last, first
    file.image.PatientName = f"{last}^{first}"


def _said(file: HardFile, text: str) -> None:
    """Text in attributes that may stay, which must not come through."""
    for keyword in KEPT_TEXT:
        _text(file.image, keyword, text)
    file.never += [text.encode("utf-8")] if len(text) >= 4 else []


# --- the name, written otherwise than in the patient's module ---------------------------------------------------------


def _other_spellings() -> None:
    spellings: dict[str, tuple[str, str, str]] = {
        "ligature written out": ("Lebœuf", "Maëlle", "LEBOEUF"),
        "ligature where two letters were": ("LEBOEUF", "MAELLE", "Lebœuf"),
        "umlaut written out": ("Müller", "Jürgen", "MUELLER"),
        "sharp s written out": ("Weißmann", "Käthe", "WEISSMANN"),
        "stroke through a letter": ("Øvergård", "Łukasz", "OVERGARD LUKASZ"),
        "apostrophe left out": ("O'Hearn", "Maeve", "OHEARN"),
        "apostrophe of print": ("D'Astous", "Zoé", "D’ASTOUS"),
        "hyphen left out": ("Saint-Cyr", "Noé", "SAINTCYR"),
        "spaces between the letters": ("Archambault", "Noé", "A R C H A M B A U L T"),
        "points between the letters": ("Archambault", "Noé", "A.R.C.H.A.M.B.A.U.L.T"),
        "accents lost as question marks": ("Bélanger", "Hélène", "B?langer"),
        "accents lost as two question marks": ("Bélanger", "Hélène", "B??LANGER"),
        "accents lost as underscores": ("Lévesque", "Gaëtan", "L_VESQUE GA_TAN"),
        "accents dropped": ("Lévesque", "Gaëtan", "LVESQUE"),
        "utf-8 read as latin-1": ("Bélanger", "Hélène", "Bélanger".encode().decode("latin-1")),
        "utf-8 read as windows": ("Gagné", "Thérèse", "Thérèse".encode().decode("cp1252")),
        "utf-8 read as the old dos": ("Bélanger", "Hélène", "Bélanger".encode().decode("cp437")),
        "names of html": ("Bélanger", "Hélène", html.escape("Bélanger").replace("é", "&eacute;")),
        "numbers of html": ("Bélanger", "Hélène", "B&#233;langer"),
        "percent signs": ("Bélanger", "Hélène", quote("Bélanger")),
        "quoted printable": ("Bélanger", "Hélène", quopri.encodestring("Bélanger".encode("latin-1")).decode()),
        "escapes of rich text": ("Bélanger", "Hélène", r"B\'e9langer"),
        "escapes of hl7": ("Bélanger", "Hélène", r"B\XC9\langer"),
        "full width": ("Bélanger", "Marc", "ＢＥＬＡＮＧＥＲ"),
        "letters of another script that look alike": ("Roberge", "Marc", "Rоbеrgе"),
        "base64 without padding": ("Bélanger", "Marc", base64.b64encode(b"Belanger Ma").decode().rstrip("=")),
        "hexadecimal": ("Bélanger", "Marc", b"Belanger".hex()),
        "short name and initial": ("Roy", "Ana", "ROY A"),
        "name as an address": ("Bélanger", "Marc", "m.belanger@exemple.ca"),
        "name as a path": ("Bélanger", "Marc", "//srv/dicom/belanger_m/1.dcm"),
        "name in camel case": ("Bélanger", "Marc", "exportMarcBelangerRX"),
        "first and last name swapped": ("Bélanger", "Marc", "Marc^BELANGER"),
        "the second of two names": ("Gagnon Bouchard", "Marie Lou", "BOUCHARD"),
        "title and name": ("Bélanger", "Marc", "M. BELANGER"),
    }  # fmt: skip

    for name, (last, first, text) in spellings.items():

        def put(file: HardFile, last: str = last, first: str = first, text: str = text) -> None:
            _called(file, last, first)
            _said(file, text)

        KINDS[f"name with {name}"] = put
        RENAMING.add(f"name with {name}")


_other_spellings()


@_renaming
def _name_over_the_values_of_a_text(file: HardFile) -> None:
    _called(file, "Archambault", "Noé")
    for keyword in ("Manufacturer", "SoftwareVersions", "ImageType"):
        _text(file.image, keyword, "AR\\CHAM\\BA\\ULT")
    file.never.append(b"AR\\CHAM\\BA\\ULT")


@_kind
def _record_number_over_the_values_of_a_text(file: HardFile) -> None:
    r = file.person.record
    pieces = f"{r[:3]}\\{r[3:6]}\\{r[6:]}"
    _text(file.image, "ImageType", f"ORIGINAL\\PRIMARY\\{pieces}")
    _text(file.image, "SoftwareVersions", pieces)
    file.never.append(pieces.encode())


@_renaming
def _name_that_was_damaged_in_the_patient_module(file: HardFile) -> None:
    """The feeding system lost the accents; whoever typed the description had them."""
    _known_before(file)
    file.person.last = "Bélanger"
    file.image.PatientName = "B?langer^Marc"
    _said(file, "RX BELANGER")


@_renaming
def _name_encoded_twice_in_the_patient_module(file: HardFile) -> None:
    _known_before(file)
    file.person.last = "Bélanger"
    file.image.PatientName = f"{'Bélanger'.encode().decode('latin-1')}^Marc"
    _said(file, "RX BELANGER")


@_renaming
def _name_in_the_set_of_old_macs(file: HardFile) -> None:
    """Bytes of another set than the declared one."""
    _called(file, "Bélanger", "Marc")
    name = "Bélanger^Marc".encode("mac-roman")
    file.image.PatientName = "B3langer^Marc"
    file.raw.append(lambda raw: raw.replace(b"B3langer^Marc", name))
    _said(file, "RX BELANGER")


def _sets() -> None:
    named = {
        "chinese": ("GB18030", "王^小东", "王小东"),
        "japanese": (["", "ISO 2022 IR 87"], "山田^太郎", "山田太郎"),
        "korean": (["", "ISO 2022 IR 149"], "홍^길동", "홍길동"),
        "hebrew": ("ISO_IR 138", "כהן^דוד", "כהן"),
        "arabic": ("ISO_IR 127", "خوري^سامي", "خوري"),
        "greek": ("ISO_IR 126", "Παππάς^Νίκος", "ΠΑΠΠΑΣ"),
        "cyrillic": ("ISO_IR 144", "Иванов^Иван", "ИВАНОВ"),
        "polish": ("ISO_IR 101", "Wiśniewski^Paweł", "WISNIEWSKI"),
        "turkish": ("ISO_IR 148", "Yıldız^Gül", "YILDIZ"),
        "latin 9": ("ISO_IR 203", "Lecœur^Noé", "LECOEUR"),
        "escaped latin 1": (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Bélanger^Noé", "BELANGER"),
    }
    for name, (charset, patient, text) in named.items():

        def put(file: HardFile, charset: str | list[str] = charset, patient: str = patient, text: str = text) -> None:
            _known_before(file)
            file.image.SpecificCharacterSet = charset
            file.person.last, file.person.first = patient.split("^")
            file.image.PatientName = patient
            file.image.InstitutionName, file.image.ReferringPhysicianName = "Verdun", plain(file.person.doctor)
            file.image.PatientAddress = plain(file.person.address)
            file.never += [text.encode()] if len(text.encode()) >= 4 else []
            for keyword in KEPT_TEXT:
                _text(file.image, keyword, text)

        KINDS[f"{name} name"] = put
        RENAMING.add(f"{name} name")


_sets()


# --- somebody of whom the header says nothing else --------------------------------------------------------------------


def _strangers() -> None:
    texts = {
        "telephone of a relative as an ethnic group": ("EthnicGroup", "438 555 0199"),
        "relative as an ethnic group": ("EthnicGroup", "Mme Quesnel"),
        "relative as a smoking status": ("SmokingStatus", "QUESNEL"),
        "relative in the patient's sex": ("PatientSex", "QUESNEL"),
        "other script in the maker": ("Manufacturer", "王小东"),
        "relative in the description": ("StudyDescription", "Aviser Luc Quesnel"),
        "insurance number of a relative": ("ImageComments", "QUEL 6154 1234"),
        "postal code": ("SeriesDescription", "RX h2x 1y4"),
        "social insurance number": ("ImageComments", "NAS 046 454 286"),
        "birthday in words": ("ImageComments", "né un 3 février 1961"),
        "english birthday": ("ImageComments", "born March 3rd, 1961"),
        "credit to a technologist": ("ImageComments", "fait par Quesnel tech"),
        "bed and room": ("ImageComments", "lit 412-2 chambre 4125"),
        "address of a web page": ("ImageComments", "pacs.exemple.ca/p?id=77"),
    }
    for name, (keyword, text) in texts.items():

        def put(file: HardFile, keyword: str = keyword, text: str = text) -> None:
            _text(file.image, keyword, text)
            file.never.append(text.encode())

        KINDS[name] = put


_strangers()


# --- numbers ----------------------------------------------------------------------------------------------------------


def _number(file: HardFile, keyword: str, text: str) -> None:
    _text(file.image, keyword, text)
    if len(text.strip()) >= 4:
        file.never.append(text.strip().encode())


@_renaming
def _record_number_without_its_zeros(file: HardFile) -> None:
    _known_before(file)
    file.person.record = "0004718"
    file.image.PatientID = "0004718"
    _number(file, "SeriesNumber", "4718")
    _number(file, "ExposureIndex", "4718.0")


@_kind
def _record_number_with_more_zeros(file: HardFile) -> None:
    _number(file, "SeriesNumber", f"00{file.person.record}")


@_kind
def _record_number_with_a_sign(file: HardFile) -> None:
    _number(file, "ExposureIndex", f"-{file.person.record}")


@_kind
def _birth_date_of_six_figures(file: HardFile) -> None:
    b = file.person.birth
    _number(file, "ExposureIndex", b[2:])
    _number(file, "TargetExposureIndex", f"{b[6:]}{b[4:6]}{b[2:4]}")


@_kind
def _birth_date_as_a_binary_number(file: HardFile) -> None:
    birth = int(file.person.birth)
    file.image.add_new(0x00700041, "UL", birth)
    file.image.add_new(0x00409224, "FD", float(birth))
    file.never += [struct.pack("<L", birth), struct.pack("<d", float(birth))]


@_kind
def _name_as_a_row_of_numbers(file: HardFile) -> None:
    """A letter a number, as macros write it."""
    text = plain(file.person.last).encode()
    file.image.add_new(0x00603020, "UL", list(text))
    file.image.add_new(0x00700022, "FL", [float(letter) for letter in text])
    file.never += [struct.pack(f"<{len(text)}L", *text), struct.pack(f"<{len(text)}f", *map(float, text))]


@_kind
def _name_as_a_row_of_decimals(file: HardFile) -> None:
    codes = "\\".join(str(letter) for letter in plain(file.person.last).encode())
    _number(file, "FieldOfViewOrigin", codes)


# --- the container ----------------------------------------------------------------------------------------------------


@_kind
def _second_file_behind_the_first(file: HardFile) -> None:
    inner = bytes(128) + b"DICM" + file.said.encode()
    file.tail += inner + file.person.record.encode()


@_kind
def _picture_file_in_the_preamble(file: HardFile) -> None:
    text = file.said.encode("latin-1", "replace")[:100]
    file.preamble = (b"II*\0\x08\0\0\0" + struct.pack("<HHHLL", 1, 270, 2, len(text), 26) + text).ljust(128, b"\0")


@_kind
def _group_2_with_everything(file: HardFile) -> None:
    last = plain(file.person.last).replace("'", "")[:16]
    file.meta.SendingApplicationEntityTitle = file.meta.ReceivingApplicationEntityTitle = last
    file.meta.PrivateInformationCreatorUID = generate_uid()
    file.meta.PrivateInformation = file.said.encode("utf-16-le")
    file.meta.ImplementationClassUID = f"1.2.3.{file.person.record}"


@_kind
def _unknown_private_sequence_with_an_icon(file: HardFile) -> None:
    if file.syntax == container.IMPLICIT:
        return
    name = file.said.encode()
    name += b" " * (len(name) % 2)
    icon = struct.pack("<HHL", 0x7FE0, 0x0010, len(name)) + name
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + icon + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    inner = struct.pack("<HHL", 0x0088, 0x0200, 0xFFFFFFFF) + item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    outer = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
    creator = struct.pack("<HH2sH", 0x0009, 0x0010, b"LO", 14) + b"GEMS_GENIE_1  "
    element = struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, len(outer)) + outer
    file.raw.append(lambda raw: put_raw(raw, creator + element))


@_kind
def _icon_of_an_icon(file: HardFile) -> None:
    inner, icon, reference = Dataset(), Dataset(), _reference(file.person.instance)
    inner.Rows = inner.Columns = 4
    inner.PixelData, inner["PixelData"].VR = file.said.encode().ljust(64, b" ")[:64], "OB"
    icon.IconImageSequence = Sequence([inner])
    icon.add_new(0x00200D, "UI", file.person.study)
    reference.IconImageSequence = Sequence([icon])
    file.image.ReferencedImageSequence = Sequence([reference])
    file.image.SourceImageSequence = Sequence([reference])


@_kind
def _compressed_icon(file: HardFile) -> None:
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelData = encapsulate([b"\xff\xd8\xff\xfe\0\x20" + file.said.encode().ljust(40)[:40]])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    file.image.IconImageSequence = Sequence([icon])


@_kind
def _multi_frame_groups_beside_the_image(file: HardFile) -> None:
    """Functional groups of a class that has none: they go, or the file is refused by name; nothing comes through."""
    group, content = Dataset(), Dataset()
    content.FrameComments, content.FrameLabel = file.said, file.person.record
    group.FrameContentSequence = Sequence([content])
    file.image.ReferencedPatientSequence = Sequence([group])
    file.image.add_new(0x00209111, "SQ", Sequence([content]))


@_kind
def _request_of_another_system(file: HardFile) -> None:
    item, code = Dataset(), _code("THX", "99RIS", f"Thorax {file.person.last}")
    item.AccessionNumber, item.RequestedProcedureID = file.person.accession, file.person.record
    item.ReasonForTheRequestedProcedure, item.RequestedProcedureDescription = file.said, f"RX {file.said}"
    item.RequestedProcedureCodeSequence = item.ScheduledProtocolCodeSequence = Sequence([code])
    item.add_new(0x00320010, "LO", file.said)
    file.image.RequestAttributesSequence = Sequence([item, item])


@_kind
def _history_of_changes_in_three_levels(file: HardFile) -> None:
    deepest, middle, outer = Dataset(), Dataset(), Dataset()
    deepest.PatientName, deepest.PatientID = file.said, file.person.record
    middle.ModifiedAttributesSequence, middle.ModifyingSystem = Sequence([deepest]), file.person.last
    outer.OriginalAttributesSequence = Sequence([middle])
    outer.ModifiedAttributesSequence = Sequence([deepest])
    file.image.OriginalAttributesSequence = Sequence([outer])


@_kind
def _signature_and_certificate(file: HardFile) -> None:
    item = Dataset()
    item.DigitalSignatureUID, item.DigitalSignatureDateTime = f"1.2.3.{file.person.record}", file.person.date
    item.CertificateOfSigner = f"CN={file.said},O=CIUSSS".encode().ljust(80, b"\0")
    item.Signature = file.person.record.encode().ljust(20, b"\0")
    file.image.MACParametersSequence = Sequence([Dataset()])
    file.image.DigitalSignaturesSequence = Sequence([item])


@_kind
def _audio_and_curves_in_every_group(file: HardFile) -> None:
    for group in (0x5000, 0x5002, 0x501E):
        tag = group << 16
        file.image.add_new(tag | 0x0022, "LO", file.said)
        file.image.add_new(tag | 0x0020, "CS", "TAC")
        file.image.add_new(tag | 0x2610, "SH", file.said[:16])
        file.image.add_new(tag | 0x3000, "OW", file.said.encode().ljust(60)[:60])


@_kind
def _overlays_in_odd_groups(file: HardFile) -> None:
    for group in (0x6002, 0x601E, 0x60FE):
        tag = group << 16
        file.image.add_new(tag | 0x0010, "US", 8)
        file.image.add_new(tag | 0x0011, "US", 8)
        file.image.add_new(tag | 0x0040, "CS", "G")
        file.image.add_new(tag | 0x3000, "OW", file.said.encode().ljust(60, b"\0")[:60])
        file.image.add_new(tag | 0x1500, "LO", file.said)
        file.image.add_new(tag | 0x0800, "CS", plain(file.person.last).replace("'", "")[:16])


@_kind
def _commands_of_the_network(file: HardFile) -> None:
    if file.syntax == container.IMPLICIT:
        return
    name = file.said.encode()
    name += b" " * (len(name) % 2)
    for group, number in ((0x0003, 0x1010), (0x0005, 0x1010), (0x0011, 0x1010), (0xFFFF, 0x1010)):
        element = struct.pack("<HH2sH", group, number, b"LO", len(name)) + name
        file.raw.append(lambda raw, element=element: put_raw(raw, element))


@_kind
def _padding_inside_a_kept_sequence(file: HardFile) -> None:
    item = _code("399348003", "SCT", "PA")
    item.add_new(0xFFFCFFFC, "OB", file.said.encode().ljust(60, b"\0")[:60])
    item.add_new(0x00090010, "LO", "AGFA PACS")
    item.add_new(0x00091010, "UN", file.said.encode("utf-16-le"))
    file.image.ViewCodeSequence = Sequence([item])


@_kind
def _private_blocks_of_makers(file: HardFile) -> None:
    """Where makers are known to repeat the patient's module."""
    blocks = {
        "AGFA": (0x0019, 0x05), "GEIIS": (0x0029, 0x10), "SIEMENS CSA HEADER": (0x0029, 0x20),
        "FDMS 1.0": (0x0009, 0x91), "PMI Private Calibration Module Version 2.0": (0x2113, 0x31),
        "CARESTREAM IMAGE INFORMATION": (0x0029, 0x15), "Mitra Presentation 1.0": (0x0029, 0x00),
        "KONICA1.0": (0x0019, 0x60), "CANON_MEC_MR3": (0x0011, 0x01), "GEMS_PARM_01": (0x0043, 0x2A),
    }  # fmt: skip
    for creator, (group, number) in blocks.items():
        block = file.image.private_block(group, creator, create=True)
        block.add_new(number, "LO", file.said[:64])
        block.add_new(number + 1, "PN", f"{file.person.last}^{file.person.first}")
        block.add_new(number + 2, "OB", file.person.record.encode().ljust(10))


@_kind
def _application_segments_of_a_picture_editor(file: HardFile) -> None:
    def put(frame: bytes) -> bytes:
        if frame[:2] != b"\xff\xd8":
            return frame
        text = file.said.encode()
        resources = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">L", len(text) + 5)
        resources += b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
        xmp = b"http://ns.adobe.com/xap/1.0/\0<x>" + text + b"</x>"
        adobe = b"Adobe\0\x64\0\0\0\0\0" + text
        segments = ((0xFFED, resources), (0xFFE1, xmp), (0xFFEE, adobe), (0xFFE2, b"ICC_PROFILE\0\1\1" + text))
        return frame[:2] + b"".join(struct.pack(">HH", m, len(body) + 2) + body for m, body in segments) + frame[2:]

    file.stream = put


@_kind
def _comment_before_the_scan(file: HardFile) -> None:
    """Comments may stand between tables, and in the header of a tile."""

    def put(frame: bytes) -> bytes:
        text = file.said.encode("utf-16-be")
        if frame[:2] == b"\xff\xd8":
            at = frame.find(b"\xff\xda")
            return frame[:at] + struct.pack(">HH", 0xFFFE, len(text) + 2) + text + frame[at:]
        if frame[:2] == b"\xff\x4f":
            at = frame.find(b"\xff\x93")
            start = frame.find(b"\xff\x90")
            comment = struct.pack(">HHH", 0xFF64, len(text) + 4, 0) + text
            (size,) = struct.unpack(">L", frame[start + 6 : start + 10])
            longer = struct.pack(">L", size + len(comment)) if size else bytes(4)
            return frame[: start + 6] + longer + frame[start + 10 : at] + comment + frame[at:]
        return frame

    file.stream = put


@_kind
def _picture_before_the_picture(file: HardFile) -> None:
    """Bytes in front of the stream, as a file format's own header."""
    file.stream = lambda frame: (
        (file.said.encode() + b"\0\0" + frame) if frame[:2] in (b"\xff\xd8", b"\xff\x4f") else frame
    )


@_kind
def _identifiers_of_all_kinds_of_subjects(file: HardFile) -> None:
    p, item = file.person, Dataset()
    item.PatientID, item.TypeOfPatientID = p.insurance, "TEXT"
    file.image.PatientPrimaryLanguageCodeModifierSequence = Sequence([item])
    file.image.GroupOfPatientsIdentificationSequence = Sequence([item])
    file.image.SourcePatientGroupIdentificationSequence = Sequence([item])
    for keyword in (
        "PatientBirthName", "PatientReligiousPreference", "MilitaryRank", "BranchOfService", "CountryOfResidence",
        "RegionOfResidence", "PatientBreedDescription", "IssueDateOfImagingServiceRequest",
        "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "OrderEnteredBy",
        "InsurancePlanIdentification",
    ):  # fmt: skip
        _text(file.image, keyword, f"{p.last} {p.record}")
    _text(file.image, "OrderCallbackPhoneNumber", p.phone)
