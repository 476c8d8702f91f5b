"""Blind reads: the sheets that readers fill in, the log of what they said, and what follows from it.

A read is one row: study (`id`), finding, reader, value (1, 0, -1), with the queue it was asked for in, the probability
with which it was, whether the model's output was visible, in what role it was made and where it came from. A read is
never changed: two readers who disagree stay in the log, and an adjudicator's word is one more row. Which studies are
to be read is radia/reads.py; estimates are radia/estimate.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from radia.errors import LabelError, UnknownFinding, UnmatchedIds
from radia.findings import ABSENT, PRESENT
from radia.tables import by_id, label_values

EVALUATION, CLEANING, REPEAT = "evaluation", "cleaning", "repeat"
"""Queues: a sample with known probabilities, labels most likely wrong, studies to be read again by the same reader."""
READER, ADJUDICATOR, AGAIN, REVISED = ROLES = ("reader", "adjudicator", "again", "revised")
"""Roles: an independent read, the decision of a disagreement, a reader's second look (for agreement alone), what a
person says otherwise after the answer was locked (kept beside it; decides nothing)."""
WAITING, PARTLY, DISAGREEMENT, SETTLED = "waiting", "partly read", "disagreement", "settled"
SIMULATED = "simulated"
"""The source of reads that nobody made: the embedded hospital's."""
LOG_COLUMNS = (
    "id",
    "finding",
    "reader",
    "value",
    "queue",
    "sampling_probability",
    "model_visible",
    "role",
    "source",
)
BESIDE = ("image", "to_decide")
"""Columns of a sheet that are no findings: where the pictures lie, and what readers disagree on."""


# --- sheets ---------------------------------------------------------------------------------------------------------


def export_blind(
    queue: pd.DataFrame,
    findings: Sequence[str],
    *,
    images: Mapping[str, str] | None = None,
    to_decide: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The sheet that a reader fills in: ids in a random order and empty findings; no label, score, queue or vote.

    images: id -> where its pictures lie. to_decide: id -> the findings that readers disagree on.
    """
    ids = queue["id"].drop_duplicates().sample(frac=1.0, random_state=seed)
    sheet = pd.DataFrame({"id": ids.to_numpy()})
    for name, known in zip(BESIDE, (images, to_decide), strict=True):
        if known is not None:
            sheet[name] = [known.get(study, "") for study in sheet["id"]]
    return sheet.assign(**dict.fromkeys(findings, np.nan))


def open_for(
    reader: str,
    queue: pd.DataFrame,
    log: pd.DataFrame | None,
    *,
    role: str = READER,
    readers_needed: int = 2,
    states: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The part of the queue that this person can still read in this role. Queues are mixed, so that none shows.

    A reader: studies that lack readers and that this one has not read. An adjudicator: studies on which readers
    disagree, none of them this one's own. Again: this reader's own studies in the repeat queue, not yet read twice.
    states: what `status` says of queue and log, where it is known already.
    """
    mine = _read_by(log, reader)
    if role == AGAIN:
        asked = set(queue.loc[queue["queue"] == REPEAT, "id"]) & mine - _read_by(log, reader, role=AGAIN)
    else:
        states = status(queue, log, readers_needed=readers_needed) if states is None else states
        wanted = (DISAGREEMENT,) if role == ADJUDICATOR else (WAITING, PARTLY)
        asked = set(states.loc[states["state"].isin(wanted), "id"]) - mine
    return queue[queue["id"].isin(asked)].drop_duplicates("id")


def import_reads(
    sheet: pd.DataFrame,
    *,
    reader: str,
    queue: pd.DataFrame,
    log: pd.DataFrame | None = None,
    model_visible: bool = False,
    role: str = READER,
    source: str = "file",
    readers_needed: int = 2,
    findings: Sequence[str] = (),
) -> pd.DataFrame:
    """The log with one person's filled-in sheet added: LOG_COLUMNS, one row per (study, finding, reader, role).

    Blank cells are not read yet; the same sheet twice adds nothing. findings: the names that are allowed, if only these
    are. Raises BadLabelValue for other values than 1, 0, -1; UnknownFinding; UnmatchedIds for ids that are not in the
    queue; LabelError where a value contradicts the one this reader gave before, or the role does not allow the read.
    """
    table = by_id(sheet, name="reads").drop(columns=list(BESIDE), errors="ignore")
    known = [str(column) for column in table.columns]
    for finding in known:
        if findings and finding not in findings:
            raise UnknownFinding(finding, findings)
    values = label_values(table, known, name="reads")
    filled = np.flatnonzero((~np.isnan(values)).any(axis=1))
    _refuse_stranger(reader, role, table.index[filled], queue, log, readers_needed)
    asked = _asked_in(queue, role).set_index("id")
    strange = int((~table.index.isin(asked.index)).sum())
    if strange:
        raise UnmatchedIds(f"reads: {strange} of {len(table)} ids were not queued for reading")
    row, at = np.nonzero(~np.isnan(values))
    ids = table.index.to_numpy()[row]
    fresh = pd.DataFrame(
        {
            "id": ids,
            "finding": np.array(known, dtype=object)[at],
            "reader": reader,
            "value": values[row, at],
            "queue": asked.loc[ids, "queue"].to_numpy(),
            "sampling_probability": asked.loc[ids, "sampling_probability"].to_numpy(dtype=np.float64),
            "model_visible": model_visible,
            "role": role,
            "source": source,
        }
    )
    if log is None or log.empty:
        return fresh[list(LOG_COLUMNS)]
    if role == REVISED:
        return pd.concat([log, _changed(log, fresh)], ignore_index=True)[list(LOG_COLUMNS)]
    if role == ADJUDICATOR:
        _refuse_second_word(log, fresh)
    return _appended(log, fresh)


def _changed(log: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The rows that differ from what this person said last of the same study and finding."""
    key = ["id", "finding"]
    mine = log[log["reader"].isin(fresh["reader"])].drop_duplicates(key, keep="last").set_index(key)["value"]
    before = mine.reindex(pd.MultiIndex.from_frame(fresh[key])).to_numpy(dtype=np.float64)
    differing: pd.DataFrame = fresh.loc[before != fresh["value"].to_numpy(dtype=np.float64)]
    return differing


def _refuse_second_word(log: pd.DataFrame, fresh: pd.DataFrame) -> None:
    """Raises LabelError where another adjudicator has decided one of these findings already."""
    others = log[(log["role"] == ADJUDICATOR) & ~log["reader"].isin(fresh["reader"])]
    decided = pd.MultiIndex.from_frame(others[["id", "finding"]])
    twice = int(pd.MultiIndex.from_frame(fresh[["id", "finding"]]).isin(decided).sum())
    if twice:
        raise LabelError(f"{twice} findings were decided by another adjudicator already: there is one last word")


def _appended(log: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    key = ["id", "finding", "reader", "role"]
    together = pd.concat([log, fresh], ignore_index=True)[list(LOG_COLUMNS)]
    twice = together[together.duplicated(key, keep=False)].groupby(key)
    differing = int(((twice["value"].nunique() > 1) | (twice["model_visible"].nunique() > 1)).sum())
    if differing:
        raise LabelError(
            f"{differing} reads of this reader contradict reads of the same reader already there: "
            "a read is never overwritten; have the adjudicator decide"
        )
    return together.drop_duplicates(key, keep="first", ignore_index=True)


def _asked_in(queue: pd.DataFrame, role: str) -> pd.DataFrame:
    """One row an id: its queue and probability. A second look counts in its own queue."""
    filled = queue if "queue" in queue.columns else queue.assign(queue=EVALUATION)
    if "sampling_probability" not in filled.columns:
        filled = filled.assign(sampling_probability=np.nan)
    repeated = filled["queue"] == REPEAT
    return filled[repeated if role == AGAIN else ~repeated].drop_duplicates("id")


def _refuse_stranger(
    reader: str,
    role: str,
    studies: pd.Index[str],
    queue: pd.DataFrame,
    log: pd.DataFrame | None,
    readers_needed: int,
) -> None:
    """Raises LabelError where this person may not read these studies in this role."""
    if not reader.strip() or any(ord(letter) < 32 for letter in reader):
        raise LabelError("a read needs the reader's name, on one line")
    if role not in ROLES:
        raise LabelError(f"unknown role {role!r}; expected one of: {', '.join(ROLES)}")
    if role == READER:
        return
    mine = studies.isin(list(_read_by(log, reader)))
    if role == AGAIN and not mine.all():
        raise LabelError(f"{int((~mine).sum())} studies cannot be read again: this reader has not read them before")
    if role == REVISED:
        known = studies.isin(list(_read_by(log, reader) | _read_by(log, reader, role=ADJUDICATOR)))
        if not known.all():
            raise LabelError(f"{int((~known).sum())} studies cannot be revised: this person has not read them before")
        return
    if role == ADJUDICATOR and mine.any():
        raise LabelError(
            f"{int(mine.sum())} studies were read by this person: the adjudicator is somebody who did not read them"
        )
    counts = status(queue, log, readers_needed=readers_needed).set_index("id")["readers"]
    early = int((counts.reindex(studies).fillna(0) < readers_needed).sum())
    if role == ADJUDICATOR and early:
        raise LabelError(f"{early} studies lack {readers_needed} independent readers: an adjudicator comes after them")


def _read_by(log: pd.DataFrame | None, reader: str, *, role: str = READER) -> set[str]:
    if log is None or log.empty:
        return set()
    return set(log.loc[(log["reader"] == reader) & (log["role"] == role), "id"])


# --- what readers decided -------------------------------------------------------------------------------------------


def decide(log: pd.DataFrame, *, readers_needed: int = 1) -> pd.DataFrame:
    """One decision per (study, finding): id, finding, value, readers, adjudicated, open.

    The adjudicator's value counts where there is one; else what more than half of the readers say, of at least
    `readers_needed`; else NaN. open: enough have read, and an adjudicator is needed. -1 is a vote for neither. Reads
    made with the model's output visible, and second looks, do not count.
    """
    blind = log[~log["model_visible"].astype(bool)]
    votes = blind[blind["role"] == READER].assign(
        readers=1, present=lambda read: read["value"] == PRESENT, absent=lambda read: read["value"] == ABSENT
    )
    tally = votes.groupby(["id", "finding"])[["readers", "present", "absent"]].sum()
    enough = tally["readers"] >= readers_needed
    value = pd.Series(np.nan, index=tally.index)
    value[enough & (2 * tally["present"] > tally["readers"])] = PRESENT
    value[enough & (2 * tally["absent"] > tally["readers"])] = ABSENT
    words = blind[blind["role"] == ADJUDICATOR].drop_duplicates(["id", "finding"], keep="last")
    last = words.set_index(["id", "finding"])["value"].reindex(tally.index)
    said = last.notna()
    value[said] = last[said].where(last[said].isin((PRESENT, ABSENT)))
    result = pd.DataFrame({"value": value, "readers": tally["readers"] + said.astype(int), "adjudicated": said})
    result["open"] = enough & value.isna() & ~said
    return result.reset_index()


def status(queue: pd.DataFrame, log: pd.DataFrame | None, *, readers_needed: int = 2) -> pd.DataFrame:
    """The state of each queued study: id, queue, readers, open (findings that disagree), state.

    States: waiting (nobody has read it), disagreement (an adjudicator is needed), partly read (a finding lacks
    readers), settled; the first that holds. A study that is only to be read again is no state of its own.
    """
    states = _asked_in(queue, READER)[["id", "queue"]].reset_index(drop=True)
    blind = None if log is None else log[~log["model_visible"].astype(bool) & (log["role"] == READER)]
    if log is None or blind is None or blind.empty:
        return states.assign(readers=0, open=0, state=WAITING)
    decided = decide(log, readers_needed=readers_needed)
    short = decided["readers"] < readers_needed
    for column, known in (
        ("readers", blind.groupby("id")["reader"].nunique()),
        ("open", decided[decided["open"]].groupby("id").size()),
        ("short", decided[short].groupby("id").size()),
    ):
        states[column] = states["id"].map(known).fillna(0).astype(int)
    states["state"] = np.select(
        [states["readers"] == 0, states["open"] > 0, (states["readers"] < readers_needed) | (states["short"] > 0)],
        [WAITING, DISAGREEMENT, PARTLY],
        SETTLED,
    )
    return states.drop(columns="short")


def disagreements(log: pd.DataFrame, *, readers_needed: int = 2) -> dict[str, str]:
    """Study -> the findings that its readers disagree on, for an adjudicator's sheet."""
    decided = decide(log, readers_needed=readers_needed)
    disputed = decided[decided["open"]].groupby("id")["finding"].agg("; ".join)
    return {str(study): str(findings) for study, findings in disputed.items()}


def true_labels(log: pd.DataFrame, *, readers_needed: int = 1) -> pd.DataFrame:
    """What was decided, by study: id, findings (NaN: not decided), readers (the fewest behind a decided cell), queue,
    sampling_probability and source as recorded. For training; estimates take `gold`.
    """
    decided = decide(log, readers_needed=readers_needed)
    known = decided[decided["value"].notna()]
    wide = known.pivot(index="id", columns="finding", values="value").rename_axis(columns=None)
    recorded = ["queue", "sampling_probability", "source"]
    asked = log[log["role"] == READER].drop_duplicates("id").set_index("id")[recorded]
    return wide.assign(readers=known.groupby("id")["readers"].min()).join(asked).reset_index()


def gold(log: pd.DataFrame, queue: pd.DataFrame, designs: pd.DataFrame, *, readers_needed: int = 2) -> pd.DataFrame:
    """The reads that estimates may use, as true_labels: of the evaluation queue, with the probability of being here.

    queue: with `draw`; designs: `draw`, `id`, `sampling_probability` of every study that a draw could have chosen. With
    several draws, made independently of each other, a study is here when any of them chose it (`inclusion`).
    """
    labels = true_labels(log, readers_needed=readers_needed)
    labels = labels[labels["queue"] == EVALUATION].reset_index(drop=True)
    chances = inclusion(queue, designs, set(labels["id"]))
    return labels.assign(sampling_probability=labels["id"].map(chances).to_numpy(dtype=np.float64))


def inclusion(queue: pd.DataFrame, designs: pd.DataFrame, read: set[str]) -> pd.Series[float]:
    """The probability of having been chosen and read, by study, over all draws: 1 - Π (1 - part read · probability).

    The part of a draw that was read so far counts as a random part of it, since sheets come in a random order.
    """
    outside = pd.Series(1.0, index=pd.Index(designs["id"].unique(), name="id"))
    for draw, table in designs.groupby("draw"):
        asked = queue[(queue["draw"] == draw) & (queue["queue"] == EVALUATION)]["id"]
        part = float(asked.isin(read).mean()) if len(asked) else 1.0
        outside[table["id"].to_numpy()] *= 1 - part * table["sampling_probability"].to_numpy(dtype=np.float64)
    return (1 - outside).rename("sampling_probability")


def summary(log: pd.DataFrame) -> dict[str, Any]:
    """Counts for a person: studies, reads, people, reads set aside, and whether any was simulated."""
    return {
        "studies": int(log["id"].nunique()),
        "reads": len(log),
        "readers": int(log.loc[log["role"] == READER, "reader"].nunique()),
        "model_visible": int(log["model_visible"].astype(bool).sum()),
        "simulated": bool((log["source"] == SIMULATED).any()),
    }
