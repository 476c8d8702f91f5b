"""Which text may stand: a controlled vocabulary, and general patterns of identifiers and of names.

What belongs here: judging a piece of text. What does not: which element it comes from (that is `clean`), and what names
this patient (that is `identifiers`).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radia.dicom.identifiers import Identifiers

WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_MONTHS = (
    "JAN|FEB|FEV|MAR|APR|AVR|MAY|MAI|JUN|JUI|JUL|AUG|AOU|SEP|OCT|NOV|DEC|"  # first letters of the months, FR and EN
    "ENE|ABR|AGO|DIC|MRZ|OKT|DEZ|GEN|MAG|GIU|LUG|SET|OTT"  # and as their neighbours write them
)
_WHOLE_MONTHS = (
    "JANVIER|FEVRIER|MARS|AVRIL|MAI|JUIN|JUILLET|AOUT|SEPTEMBRE|OCTOBRE|NOVEMBRE|DECEMBRE|"
    "JANUARY|FEBRUARY|MARCH|APRIL|MAY|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER"
)
_DAY = r"\d{1,2}(?:ER|ST|ND|RD|TH|E)?"
_TITLES = (
    "DR|DRE|DOCTEUR|DOCTEURE|DOCTOR|PROF|PROFESSEUR|PROFESSEURE|MM|MR|MS|MME|MADAME|MONSIEUR|MRS|MISS|MLLE|MADEMOISELLE|"
    "VEUVE|EPOUSE|EPOUX|CONJOINT|CONJOINTE|MARI|FEMME|FILS|FILLE|MERE|PERE|FRERE|SOEUR|TUTEUR|TUTRICE|WIFE|HUSBAND|SON|"
    "DAUGHTER|MOTHER|FATHER|BROTHER|SISTER|GUARDIAN|MD|RN|INF|INFIRMIER|INFIRMIERE|NURSE|TECH|TECHNO|TECHNOLOGUE|"
    "PATIENT|PATIENTE|NE|NEE|BORN|BIRTH|NAISSANCE|BIRTHDAY|DDN|DOB|NAM|RAMQ|NOM|PRENOM|NAME|SURNAME|MRN|DOSSIER|NAS|SIN|"
    "SSN|ID|TEL|TELEPHONE|PHONE|CELL|CELLULAIRE|FAX|POSTE|COURRIEL|EMAIL|RUE|AVENUE|BOULEVARD|BOUL|CHEMIN|RANG|STREET|"
    "APP|APT|ADRESSE|ADDRESS|CASIER|ANNIVERSAIRE|ANNIV"
)
_OLD_AGE = r"\b(?:9\d|1[0-2]\d) ?-?(?:ANS?|ANNEES|YEARS?|YRS?|YO|Y/O|Y|A)\b"  # ages that few people reach
_KIN = (  # who stands before a name; people are called Cousin and Ami, so that these are no titles
    "SRA|SRTA|HERR|FRAU|DOTT|DOTTSSA|SIGNOR|SIGNORA|MAMAN|PAPA|TANTE|ONCLE|COUSIN|COUSINE|VOISIN|VOISINE|AMI|AMIE|MOM|"
    "DAD|UNCLE|AUNT|FRIEND|NEIGHBOUR|NEIGHBOR|BEAUFRERE|BELLESOEUR|BEAUPERE|BELLEMERE"
)
_NETWORKS = "INSTA|INSTAGRAM|FACEBOOK|FB|TWITTER|SNAP|SNAPCHAT|WHATSAPP|TELEGRAM|SKYPE|LINKEDIN|TIKTOK|WECHAT"
_DOMAINS = "COM|CA|ORG|NET|FR|QC|EU|INFO|IO|BE|CH|DE|UK|US|GOV|GOUV|EDU"
_ROADS = "ST|RD|AVE?|LN|LANE|ROAD|DRIVE|BLVD|BLVRD|CRT|SQUARE|ALLEE|IMPASSE|QUAI|ROUTE|RTE|CALLE|MONTEE|CROISSANT|PLATZ"
_PATTERNS = re.compile(
    "|".join(
        (
            r"[A-Z]{3,4}[ .\-]{0,2}\d{4}[ .\-]{0,2}\d{4}",  # Quebec health insurance number
            r"\d{5,}",  # record, accession and telephone numbers
            r"(?:\d[ .\-()/+]{0,3}){7,}",  # telephone, insurance and record numbers and dates, in groups of any size
            r"\d{3}[ .\-]\d{4}",  # a local telephone number
            r"\b[A-Z]\d[A-Z][ -]?\d[A-Z]\d\b",  # Canadian postal code
            r"\b\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}\b",  # dates in figures
            r"\b\d{1,2} \d{1,2} (?:19|20)\d{2}\b|\b(?:19|20)\d{2} \d{1,2} \d{1,2}\b",
            rf"\b{_DAY}[ .\-]*(?:DE )?(?:{_MONTHS})[A-Z]*[ .,\-]*(?:DEL? )?(?:\d{{4}}|\d{{2}})\b",  # and in words
            rf"\b(?:{_MONTHS})[A-Z]*[ .\-]*{_DAY}[ ,.\-']+\d{{2,4}}\b",
            rf"\b\d{{4}}[ .\-]*(?:{_MONTHS})[A-Z]*[ .\-]*\d{{1,2}}\b",
            rf"\b(?:{_MONTHS})[A-Z]*[ .,\-]*(?:19|20)\d{{2}}\b",
            rf"\b{_DAY} ?(?:{_WHOLE_MONTHS})\b|\b(?:{_WHOLE_MONTHS}) {_DAY}\b",
            r"\b\d{1,2}[ .\-/](?:I{1,3}|I?V|VI{1,3}|I?X|XI{1,2})[ .\-/]\d{2,4}\b",  # months in Roman figures
            r"\b(?:0?[1-9]|1[0-2])[/\-.](?:19|20)\d{2}\b",  # a month of a year
            _OLD_AGE,
            r"\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b",  # British national insurance number
            r"\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b|\b\d{4} ?[A-Z]{2} [A-Z]{4,}",  # British and Dutch postal codes
            r"\b[A-Z]{2}-\d{3}-[A-Z]{2}\b|\b(?:PLAQUE|PLATE|PERMIS|PASSEPORT|PASSPORT|LICEN[CS]E)[ :.]{1,3}[A-Z]+\d{2}",
            r"\b(?:[0-9A-F]{2}[:\-]){5}[0-9A-F]{2}\b|(?:[0-9A-F]{1,4}:){4}|::[0-9A-F]",  # a network card, a computer
            r"\bR[1-5] [A-Z]{3,}|\bP\. ?\d{3,}",  # a resident; an extension
            rf"\b\d{{1,5}}[A-Z]?(?: BIS| TER)?,? (?:[A-Z'.\-]+ ){{0,3}}(?:{_ROADS})\b",
            r"[A-Z]STR(?:ASSE)?\b\.? ?\d|\bSTR\. ?\d",
            r"\b(?:C\.? ?P|B\.? ?P|P\.? ?O\.? ?BOX|EXT)\b\.?:? ?\d",
            rf"\b[A-Z\d\-]+\.(?:{_DOMAINS})\b|\b(?:{_NETWORKS})\b",
            r"\b(?!P\. ?A\.|A\. ?P\.)[A-Z]\. ?[A-Z]\.",  # initials, M.D.
            rf"\b(?:{_KIN})\b",
            r"\b(?:CHAMBRE|CH|ROOM|RM|LIT|BED)\.? ?\d",
            r"@|HTTPS?:|WWW\.|#|N[O°º]\.? ?\d",
            r"\^",  # parts of a person's name
            rf"\b(?:{_TITLES})\b",
            r"\b[A-Z]\. ?[A-Z]{3,}|\bM [A-Z]{3,}",  # M. Tremblay, J. Roy
            r"\b(?:VU|LU|SIGNE|DICTE|REVISE|REFERE|DEMANDE|PRESCRIT|APPELER|CONTACTER|SEEN|READ|SIGNED|DICTATED|"
            r"REVIEWED|REFERRED|ORDERED|CALL)E?S? (?:PAR|BY|A|AU|TO)?\b ?(?=[A-Z])",
            r"(?=[A-Z+/=]*\d)(?=[\d+/=]*[A-Z])[A-Z\d+/=]{10,}",  # letters and figures mixed: encoded, or a key
        )
    )
)
_OLD = re.compile(_OLD_AGE)
_SHORT_DATE = re.compile(r"\d{1,3}[./\-]\d{1,2}[./\-]\d{1,3}")
_ENCODED = re.compile(r"(?:[A-Z0-9]*[a-z]+[A-Z0-9]+){3,}[A-Za-z0-9]*=*|=+$")
GENERIC = frozenset(_TITLES.split("|"))
"""Words that stand before a name and are none."""
_BEFORE_A_NAME = frozenset(
    ["PAR", "BY", "POUR", "FOR", "AVEC", "WITH", "CHEZ", "REF", "ATTN", "ATT", "CC", "VIA", "PER", "RE", "SIGN", "VON"]
)
_IN_PARENTHESES = re.compile(r"[(\[{]\s*([^\W\d_]{3,})\s*[)\]}]")
_ODD_SEPARATORS = re.compile(r"[^A-Z0-9 .,/()\-'\"+:;?%=#@^]+")
_MOST_FIGURES = 6  # of the numbers in a term: fewer than a telephone or record number has


# Letters that Unicode does not take apart, as their languages write them without.
_WHOLE_LETTERS = str.maketrans(
    {"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d",
     "Ð": "D", "þ": "th", "Þ": "TH", "ı": "i", "ß": "ss", "ẞ": "SS", "ħ": "h", "Ħ": "H", "’": "'", "‘": "'", "ʼ": "'",
     **dict.fromkeys("‐‑‒–—―−", "-")}
)  # fmt: skip


def plain(text: str) -> str:
    """Upper case without accents: the form in which words are compared."""
    if text.isascii():
        return text.upper()
    apart = unicodedata.normalize("NFKD", text.translate(_WHOLE_LETTERS))
    return "".join(c for c in apart if not unicodedata.combining(c)).upper()


@cache
def vocabulary() -> frozenset[str]:
    """Radiology terms in French and English, DICOM's defined terms, units, manufacturers."""
    lines = (files("radia.dicom") / "rules" / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(plain(word) for line in lines if not line.startswith("#") for word in line.split())


@lru_cache(maxsize=4096)
def in_vocabulary(text: str) -> bool:
    """Whether every word is a known term or a number of at most three figures, no more than six in all, and no date."""
    if not text.isprintable() or _SHORT_DATE.search(text) or _OLD.search(plain(text)):
        return False
    words = WORDS.findall(plain(text))
    figures = 0
    for word in words:
        if word in vocabulary():
            continue
        if not (word.isdigit() and word.isascii() and len(word) <= 3):
            return False
        figures += len(word)
    return figures <= _MOST_FIGURES


def few_figures(text: str, most: int = _MOST_FIGURES) -> bool:
    """Whether the numbers of a text have no more figures together than a term has."""
    return sum(len(word) for word in WORDS.findall(text) if word.isdigit()) <= most


_UNITS = "ΜΩ"  # of micro and ohm


def passes_scan(text: str, identifiers: Identifiers, *, of_a_maker: bool = False) -> bool:
    """Whether text shows neither an identifier of this file nor the pattern of any.

    of_a_maker: the text names a device; a capital letter within it makes no name of a person.
    """
    form = plain(text)
    if not text.isprintable() or _shows_a_pattern(form) or _ENCODED.search(text):
        return False
    if not form.isascii() and any(c.isalpha() and not c.isascii() and c not in _UNITS for c in form):
        return False  # a script in which nobody looks for names here, or letters that pass for Latin ones
    return not (_names_in(text, of_a_maker=of_a_maker) or identifiers.named_in(text) or identifiers.hinted_in(text))


def _shows_a_pattern(form: str) -> bool:
    """Looked at as it is and, where odd signs stand between its parts, with spaces in their place."""
    if _PATTERNS.search(form):
        return True
    spaced = _ODD_SEPARATORS.sub(" ", form)
    return spaced != form and bool(_PATTERNS.search(spaced))


def _names_in(text: str, *, of_a_maker: bool) -> bool:
    """Words that are no terms and stand as names do: two in a row, behind "for" or "with", in parentheses, in capitals,
    or with a capital letter within a text.
    """
    if any(plain(word) not in vocabulary() for word in _IN_PARENTHESES.findall(text)):
        return True
    words = WORDS.findall(text)
    before = after_preposition = False
    for place, word in enumerate(words):
        unknown = word.isalpha() and plain(word) not in vocabulary()
        name = unknown and (len(word) > 2 or (len(word) > 1 and word[0].isupper()))
        capital = len(word) > 3 and (word.isupper() or (word.istitle() and place > 0)) and not of_a_maker
        if name and (before or capital or (after_preposition and len(word) > 2)):
            return True
        before = name
        after_preposition = plain(word) in _BEFORE_A_NAME
    return False
