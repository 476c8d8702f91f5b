"""The way back from a pseudonym, for the holder of the key and nobody else.

Each clean file leaves one line: its patient's pseudonym and the source's identifiers, encrypted (AES in Fernet) under a
key derived from the pseudonymisation key. What does not belong here: who may ask, and the record that they did.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import KeyFileError, UnknownId
from radia.workspace import written_whole

_PSEUDONYM = re.compile(r"[PSIN][BCDFGHJKLMNPQRSTVWXZ]{16}\Z")


@dataclass(frozen=True)
class Origin:
    """What a pseudonym stands for."""

    patient_id: str
    issuer: str
    accession: str
    study_uid: str
    sop_instance_uid: str


class Crosswalk:
    """An encrypted file of origins."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._names = Pseudonymizer(key)
        self._box = Fernet(base64.urlsafe_b64encode(self._names.secret("crosswalk")))

    def seal(self, origin: Origin) -> str:
        """One line for `append`: the patient's pseudonym, and what nobody can read without the key."""
        patient = self._names.patient(origin.patient_id, origin.issuer)
        return f"{patient} {self._box.encrypt(json.dumps(asdict(origin)).encode()).decode()}"

    def append(self, lines: Iterable[str]) -> None:
        """Adds sealed lines. The file is for its owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(mode=0o600, exist_ok=True)
        with self.path.open("a", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)

    def origins(self, pseudonym: str) -> list[Origin]:
        """What a patient's, study's, image's or accession's pseudonym stands for, without doubles.

        Raises UnknownId where nothing stands behind it, KeyFileError where the file was sealed with another key.
        """
        if not _PSEUDONYM.match(pseudonym):
            raise UnknownId("this is no pseudonym: P, S, I or N and 16 letters are expected")
        if not self.path.is_file():
            raise UnknownId(f"there is no crosswalk at {self.path}: it is written when files are de-identified")
        found = [origin for origin in self._opened(pseudonym) if pseudonym in self._pseudonyms(origin)]
        if not found:
            raise UnknownId(f"{pseudonym} is no pseudonym of this archive")
        return sorted(set(found), key=lambda origin: origin.sop_instance_uid)

    def forget(self, patient: str) -> int:
        """Takes a patient's lines out; how many there were. For erasure."""
        lines = self.path.read_text(encoding="ascii").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if not line.startswith(f"{patient} ")]
        if len(kept) < len(lines):
            with written_whole(self.path) as partial:
                partial.touch(mode=0o600)
                partial.write_text("".join(f"{line}\n" for line in kept), encoding="ascii")
        return len(lines) - len(kept)

    def _opened(self, pseudonym: str) -> Iterable[Origin]:
        for line in self.path.read_text(encoding="ascii").splitlines():
            patient, _, sealed = line.partition(" ")
            if pseudonym.startswith("P") and patient != pseudonym:
                continue
            try:
                yield Origin(**json.loads(self._box.decrypt(sealed.encode())))
            except InvalidToken as error:
                message = f"the crosswalk was sealed with another key than {self._names.fingerprint}"
                raise KeyFileError(message) from error

    def _pseudonyms(self, origin: Origin) -> set[str]:
        names = self._names
        patient, study = names.patient(origin.patient_id, origin.issuer), names.study(origin.study_uid)
        return {patient, study, names.image(origin.sop_instance_uid), names.accession(origin.accession)}
