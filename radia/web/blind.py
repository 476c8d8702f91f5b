"""Blind reading: what a person is given to read, what they are asked, and what becomes of the answer. No Flask here.

Nothing that this module gives before an answer is locked comes from a model, a report or another reader, but for the
names of the findings that are asked: the one in question, and those that an earlier reader answered (never what).
What is shown afterwards is radia/web/reveal.py; the log of reads is radia/read_log.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from radia.errors import LabelError
from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN
from radia.read_log import ADJUDICATOR, AGAIN, DISAGREEMENT, READER, REPEAT, REVISED, SETTLED, open_for, status
from radia.settings import Settings
from radia.steps.reads import add_reads, read_log, read_queue
from radia.steps.run import Run
from radia.web.desk import Desk, Item, Offer
from radia.web.films import films_of
from radia.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

WEB = "web"
"""The source of reads that were made here."""
ANSWERS: Mapping[str, float] = {"1": PRESENT, "0": ABSENT, "U": UNCERTAIN, "N": float("nan")}
"""What a key stands for; N: not assessed, which leaves the cell of the log blank."""
APART = 20
"""A reader's second look comes when so many other films were read since, or when nothing else waits."""

Kind = Literal["read", "decide"]
ROLES: Mapping[Kind, tuple[str, ...]] = {"read": (READER, AGAIN), "decide": (ADJUDICATOR,)}


@dataclass(frozen=True)
class Board:
    """What is asked for, what was read, and what `radia.read_log.status` says of it, as it stands now."""

    site: Workspace
    settings: Settings
    queue: pd.DataFrame
    log: pd.DataFrame | None
    states: pd.DataFrame

    @property
    def needed(self) -> int:
        """Independent readers of each study."""
        return self.settings.reads.readers

    def read_by(self, person: str, role: str) -> frozenset[str]:
        """The studies that a person has read in a role."""
        if self.log is None or self.log.empty:
            return frozenset()
        log = self.log
        return frozenset(log.loc[(log["reader"] == person) & (log["role"] == role), "id"])


def board(site: Workspace, settings: Settings) -> Board:
    """Queue and log as they stand now. Raises LabelError where no read was asked for yet."""
    files = tuple(_stamp(file) for file in (site.read_queue, site.read_log))
    queue, log, states = _tables(site, settings.reads.readers, files)
    return Board(site, settings, queue, log, states)


@lru_cache(maxsize=2)
def _tables(site: Workspace, needed: int, _files: object) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame]:
    """Read once for each state of the files; nobody changes them in memory."""
    queue, log = read_queue(site), read_log(site)
    return queue, log, status(queue, log, readers_needed=needed)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written whole."""
    if not file.is_file():
        return None
    seen = file.stat()
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


# --- what is given --------------------------------------------------------------------------------------------------


def offers(now: Board, person: str, kind: Kind, locked: Mapping[str, Sequence[str]]) -> list[Offer]:
    """What this person may be given, in its order: by chance, the same for everybody, so that pairs are soon complete.

    locked: by role, the studies that this person has locked here, in that order.
    """
    if kind == "decide":
        return [Offer(study, ADJUDICATOR) for study in _open(now, person, ADJUDICATOR, locked)]
    readers = dict(zip(now.states["id"], now.states["readers"], strict=True))
    fresh = [
        Offer(study, READER, max(1, now.needed - int(readers[study]))) for study in _open(now, person, READER, locked)
    ]
    recent = set(locked.get(READER, ())[-APART:])
    again = [Offer(study, AGAIN) for study in _open(now, person, AGAIN, locked) if not fresh or study not in recent]
    return [*again, *fresh]


def _offers(now: Board, desk: Desk, person: str, kind: Kind) -> list[Offer]:
    return offers(now, person, kind, desk.locked(person))


def _open(now: Board, person: str, role: str, locked: Mapping[str, Sequence[str]]) -> list[str]:
    """What is open for this person in a role and not locked here, in an order that says nothing of why it is asked."""
    found = open_for(person, now.queue, now.log, role=role, readers_needed=now.needed, states=now.states)
    studies = set(found["id"]) - set(locked.get(role, ()))
    seed = now.settings.seed
    return sorted(studies, key=lambda study: hashlib.sha256(f"{seed}/{study}".encode()).digest())


def give(now: Board, desk: Desk, person: str, kind: Kind) -> Item | None:
    """The film that this person goes on with, or the next one; None where nothing waits for them."""
    while (item := desk.current(person, ROLES[kind])) is not None:
        if any((offer.study, offer.role) == (item.study, item.role) for offer in _offers(now, desk, person, kind)):
            return item
        # read meanwhile in another way, or settled by others
        desk.close(item.token, "locked" if item.study in now.read_by(person, item.role) else "gone")
    found = _offers(now, desk, person, kind)
    # a patient may have withdrawn since a film was asked for
    return desk.take(person, (offer for offer in found if films_of(now.site, offer.study)))


def asked(now: Board, item: Item) -> tuple[str, ...]:
    """The findings that are asked, the one in question first."""
    if item.role == ADJUDICATOR:
        return tuple(finding for finding in FINDINGS if finding in _disputed(now, item.study))
    question = question_of(now.site, item.study)
    if question is None:
        return FINDINGS
    wanted = _read_before(now, item)
    return (question, *(finding for finding in FINDINGS if finding in wanted and finding != question))


def question_of(site: Workspace, study: str) -> str | None:
    """The finding whose label is most suspect in this study."""
    table = site.suspects / "suspects.parquet"
    return _most_suspect(table, study, _stamp(table))


@lru_cache(maxsize=1024)
def _most_suspect(table: Path, study: str, stamp: object) -> str | None:
    import pandas as pd

    if stamp is None:
        return None
    ranked = pd.read_parquet(table, columns=["finding", "rank"], filters=[("id", "==", study)])
    known = ranked[ranked["finding"].isin(FINDINGS)].sort_values("rank")
    return None if known.empty else str(known["finding"].iloc[0])


def _read_before(now: Board, item: Item) -> set[str]:
    """What others have answered and lack a reader for; of a second look, what this reader answered at first."""
    if now.log is None:
        return set()
    log = now.log[(now.log["id"] == item.study) & (now.log["role"] == READER)]
    if item.role == AGAIN:
        return set(log.loc[log["reader"] == item.person, "finding"])
    blind = log[~log["model_visible"].astype(bool)]
    readers = blind.groupby("finding")["reader"].nunique()
    return set(readers.index[readers < now.needed])


def _disputed(now: Board, study: str) -> set[str]:
    from radia.read_log import decide

    if now.log is None:
        return set()
    decided = decide(now.log[now.log["id"] == study], readers_needed=now.needed)
    return set(decided.loc[decided["open"], "finding"])


def waiting(now: Board, desk: Desk, person: str, kind: Kind) -> int:
    """How many films wait for this person, the one before them among them."""
    return len(_offers(now, desk, person, kind))


# --- what becomes of the answer -------------------------------------------------------------------------------------


def checked_answers(values: Mapping[str, object]) -> dict[str, str]:
    """The answers among some values, by finding. Raises LabelError for what is no finding and no answer."""
    for finding, answer in values.items():
        if finding not in FINDINGS or answer not in ANSWERS:
            raise LabelError("an answer is 1, 0, U or N to one of the 14 findings")
    return {finding: str(values[finding]) for finding in FINDINGS if finding in values}


def unanswered(now: Board, item: Item) -> list[str]:
    """The findings that an answer lacks: the one in question, or whatever an adjudicator is to decide.

    What another reader answered in the meantime is asked of the next one who is given the film, not of this one.
    """
    wanted = asked(now, item)
    if item.role != ADJUDICATOR and question_of(now.site, item.study) is not None:
        wanted = wanted[:1]
    return [finding for finding in wanted if finding not in item.answers]


def lock(now: Board, desk: Desk, item: Item) -> bool:
    """Puts an item's answers into the log and the ledger for good; False where they were locked before.

    Raises LabelError where an asked finding has no answer, or the log does not take it: somebody else has decided.
    """
    if missing := unanswered(now, item):
        raise LabelError(f"{len(missing)} of the findings that are asked have no answer yet")
    skipped = [finding for finding, answer in item.answers.items() if answer == "N"]
    details = {"seconds": round(item.seconds, 1), "not_assessed": skipped, "revealed": reveals(now, item)}
    if item.study not in now.read_by(item.person, item.role):
        _add(now, item, item.answers, role=item.role, visible=False, details=details)
    return desk.close(item.token, "locked")


def revise(now: Board, item: Item, answers: Mapping[str, str]) -> int:
    """What a person says otherwise after the lock, beside what they said; how many findings differ. Raises LabelError.

    The answer that was locked stays, and goes on to count: what was said with the model's output in view does not.
    """
    if item.state != "locked":
        raise LabelError("only an answer that is locked is changed beside itself")
    known = {finding: answer for finding, answer in answers.items() if answer != "N"}
    return _add(now, item, known, role=REVISED, visible=reveals(now, item), details=None) if known else 0


def last_word(now: Board, item: Item) -> dict[str, str]:
    """What this person says of the study today: the locked answers, later changes over them."""
    said = dict(item.answers)
    if now.log is None:
        return said
    log = now.log[(now.log["id"] == item.study) & (now.log["reader"] == item.person) & (now.log["role"] == REVISED)]
    names = {value: key for key, value in ANSWERS.items()}
    return said | {str(finding): names[value] for finding, value in zip(log["finding"], log["value"], strict=True)}


def reveals(now: Board, item: Item) -> bool:
    """Whether model and report are shown after the lock: not while this person is to read the film once more."""
    if item.role != READER:
        return True
    repeats = set(now.queue.loc[now.queue["queue"] == REPEAT, "id"])
    return item.study not in repeats or item.study in now.read_by(item.person, AGAIN)


def _add(
    now: Board,
    item: Item,
    answers: Mapping[str, str],
    *,
    role: str,
    visible: bool,
    details: dict[str, object] | None,
) -> int:
    import pandas as pd

    values = {finding: [ANSWERS[answer]] for finding, answer in answers.items()}
    table = pd.DataFrame(values, index=pd.Index([item.study], name="id"), dtype=float)
    run = Run(now.site, now.settings, item.person)
    done = add_reads(run, table, reader=item.person, role=role, model_visible=visible, source=WEB, details=details)
    return int(done["new"])


# --- how far it is --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Studies by how far they are, and what waits for one person."""

    studies: int
    settled: int
    disagreements: int
    to_read: int
    to_decide: int


def progress(now: Board, desk: Desk, person: str) -> Progress:
    """How far everything is, and what waits for this person."""
    states = now.states["state"]
    return Progress(
        len(states),
        int((states == SETTLED).sum()),
        int((states == DISAGREEMENT).sum()),
        waiting(now, desk, person, "read"),
        waiting(now, desk, person, "decide"),
    )
