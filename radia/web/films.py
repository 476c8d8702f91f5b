"""The films of a study and those of the same patient before it, by pseudonym. What is said of them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
    return tuple(path for path in _places(site, study, _stamp(site)) if path.is_file())


def film_of(films: tuple[Path, ...], number: int) -> bytes:
    """The bytes of one of them, from 0. Raises UnknownId."""
    if not 0 <= number < len(films):
        raise UnknownId("there is no such film")
    return films[number].read_bytes()


def prior_of(site: Workspace, study: str) -> Prior | None:
    """The last study of this patient before this one; None where there is none, or dates do not say."""
    before = _before(site, study, _stamp(site))
    films = films_of(site, before[0]) if before else ()
    return Prior(films, before[1]) if before and films else None


def _stamp(site: Workspace) -> int:
    """What changes when a batch comes to the manifest, or is written anew."""
    return site.manifest.stat().st_mtime_ns if site.manifest.is_dir() else 0


@lru_cache(maxsize=1024)
def _places(site: Workspace, study: str, _manifest: int) -> tuple[Path, ...]:
    rows = query(site.manifest, "SELECT image, batch FROM manifest WHERE study = ? ORDER BY image", [study])
    places = [_file_of(site, str(image), str(batch)) for image, batch in zip(rows["image"], rows["batch"], strict=True)]
    return tuple(path for path in places if path is not None)


@lru_cache(maxsize=1024)
def _before(site: Workspace, study: str, _manifest: int) -> tuple[str, int] | None:
    """The study before, and the days between."""
    rows = query(
        site.manifest,
        "WITH this AS (SELECT patient, min(study_date) AS day FROM manifest WHERE study = ? GROUP BY patient) "
        "SELECT other.study AS study, date_diff('day', other.study_date, this.day) AS days "
        "FROM manifest AS other JOIN this USING (patient) WHERE other.study <> ? AND other.study_date < this.day "
        "ORDER BY days, study LIMIT 1",
        [study, study],
    )
    return None if rows.empty else (str(rows["study"].iloc[0]), int(rows["days"].iloc[0]))


def _file_of(site: Workspace, image: str, batch: str) -> Path | None:
    import pandas as pd

    outcomes = site.clean / batch / "outcomes.parquet"
    if not outcomes.is_file():
        return None
    rows = pd.read_parquet(outcomes, columns=["outcome", "output"], filters=[("image", "==", image)])
    kept = rows.loc[rows["outcome"] == "clean", "output"]
    return None if kept.empty else outcomes.parent / str(kept.iloc[0])
