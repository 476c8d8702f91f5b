"""Steps that speak to other machines: a PACS that is asked, senders that are listened to, people who are told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from radia.errors import IntakeError, LedgerError
from radia.ledger import Action
from radia.steps.data import all_received, received
from radia.steps.run import Outcome, Run

if TYPE_CHECKING:
    from radia.intake import Receipt
    from radia.settings import PacsSettings

logger = logging.getLogger(__name__)
LOOK_SECONDS = 0.2
"""How often a receiver looks whether it shall end."""


def fetch(run: Run, *, site: str | None = None, since: date | None = None, until: date | None = None) -> list[Outcome]:
    """Asks every PACS of the settings, or one site's, for the studies of these days; the batches that are new.

    since: where it is not given, yesterday less the settings' overlap; until: today. The ledger keeps who asked for
    which days, before anything is asked. One PACS that fails keeps no other from being asked. Raises IntakeError where
    none is configured, or, after all were asked, where one failed.
    """
    from radia.intake.pacs import take_pacs

    today = datetime.now(UTC).date()
    first = since or today - timedelta(days=1 + run.settings.intake.overlap_days)
    last = until or today
    if first > last:
        raise IntakeError(f"no day lies between {first} and {last}: give the earlier one first")
    new: list[Receipt] = []
    failures: list[IntakeError] = []
    for pacs in _chosen(run, site):
        asked = {"pacs": pacs.site, "since": first.isoformat(), "until": last.isoformat()}
        run.ledger.append(Action.QUERIED, actor=run.actor, parameters={**asked, **run.tags})
        try:
            tick = run.ticker(f"pacs {pacs.site}")
            new += take_pacs(pacs, run.workspace.landing, since=first, until=last, today=today, progress=tick)
        except IntakeError as error:
            failures.append(error)
    outcomes = _of(all_received(run), new)
    if failures:
        raise IntakeError("; ".join(map(str, failures)))
    return outcomes


def fetch_day(run: Run, day: date) -> list[Outcome]:
    """Asks every PACS for one day, and for the days around it where clocks may differ. Raises IntakeError."""
    around = timedelta(days=run.settings.intake.overlap_days)
    return fetch(run, since=day - around, until=day + around)


def receive(
    run: Run,
    stop: Event,
    *,
    listening: Callable[[int], None] = lambda port: None,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> int:
    """Serves senders (C-STORE) until `stop` is set; the ledger and `told` hear of every batch. How many there were.

    Where the ledger cannot be written just then, the batch is safe all the same, and is told with the next one or by
    the next intake. Raises IntakeError, SettingsError.
    """
    from radia.intake.receiver import Receiver
    from radia.operations.measures import page

    arrived: SimpleQueue[Receipt] = SimpleQueue()
    count = 0
    untold: list[Receipt] = []
    receiver = Receiver(run.workspace.landing, run.settings.intake.receiver, received=arrived.put)
    with page("receiver", receiver.measures.registry), receiver:
        listening(receiver.port)
        while not stop.wait(LOOK_SECONDS):
            new = _emptied(arrived)
            count += len(new)
            if new:
                untold = _tell(run, untold + new, told)
    last = _emptied(arrived)
    _tell(run, untold + last, told)
    return count + len(last)


def _tell(run: Run, new: list[Receipt], told: Callable[[Outcome], None]) -> list[Receipt]:
    """Tells of these batches alone, however many came in all the years; those that the ledger did not take."""
    try:
        for outcome in received(run, new):
            told(outcome)
    except LedgerError as error:
        logger.warning("%d batches are safe, and not in the ledger yet: %s", len(new), error)
        return new
    return []


def _emptied(queue: SimpleQueue[Receipt]) -> list[Receipt]:
    found: list[Receipt] = []
    while True:
        try:
            found.append(queue.get_nowait())
        except Empty:
            return found


def _of(outcomes: list[Outcome], new: list[Receipt]) -> list[Outcome]:
    names = {receipt.batch for receipt in new}
    return [outcome for outcome in outcomes if outcome.summary["batch"] in names]


def _chosen(run: Run, site: str | None) -> list[PacsSettings]:
    """Raises IntakeError."""
    configured = run.settings.intake.pacs
    if not configured:
        raise IntakeError("no PACS is configured: list site and url of each in intake.pacs of params.yaml")
    chosen = [pacs for pacs in configured if site in (None, pacs.site)]
    if not chosen:
        raise IntakeError(
            f"no PACS of that site is configured: intake.pacs has {', '.join(p.site for p in configured)}"
        )
    return chosen
