"""The films of a study and those of the same patient before it, by pseudonym. What is said of them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from radia.errors import UnknownId
from radia.manifest import query
from radia.workspace import Workspace


@dataclass(frozen=True)
class Prior:
    """The study before, of the same patient: its clean files, and how many days before."""

    films: tuple[Path, ...]
    days: int


def films_of(site: Workspace, study: str) -> tuple[Path, ...]:
    """The clean files of a study that the archive holds, by image; none where it is not there (any more)."""
    rows = query(site.manifest, "SELECT image, batch FROM manifest WHERE study = ? ORDER BY image", [study])
    places = [_file_of(site, str(image), str(batch)) for image, batch in zip(rows["image"], rows["batch"], strict=True)]
    return tuple(path for path in places if path is not None and path.is_file())


def film_of(films: tuple[Path, ...], number: int) -> bytes:
    """The bytes of one of them, from 0. Raises UnknownId."""
    if not 0 <= number < len(films):
        raise UnknownId("there is no such film")
    return films[number].read_bytes()


def prior_of(site: Workspace, study: str) -> Prior | None:
    """The last study of this patient before this one; None where there is none, or dates do not say."""
    rows = query(
        site.manifest,
        "WITH this AS (SELECT patient, min(study_date) AS day FROM manifest WHERE study = ? GROUP BY patient) "
        "SELECT other.study AS study, date_diff('day', other.study_date, this.day) AS days "
        "FROM manifest AS other JOIN this USING (patient) WHERE other.study <> ? AND other.study_date < this.day "
        "ORDER BY days, study LIMIT 1",
        [study, study],
    )
    films = () if rows.empty else films_of(site, str(rows["study"].iloc[0]))
    return Prior(films, int(rows["days"].iloc[0])) if films else None


def _file_of(site: Workspace, image: str, batch: str) -> Path | None:
    outcomes = site.clean / batch / "outcomes.parquet"
    if not outcomes.is_file():
        return None
    rows = query(
        site.manifest,
        "SELECT output FROM outcomes WHERE image = ? AND outcome = 'clean'",
        [image],
        tables={"outcomes": outcomes},
    )
    return None if rows.empty else outcomes.parent / str(rows["output"].iloc[0])
