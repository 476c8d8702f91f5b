"""Intake batches as partitions: `<site>-<date>-<n>`, added as they arrive; and the days a PACS is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from pipelines.presentation import metadata
from radia.settings import load_settings
from radia.steps import Outcome

batches = dg.DynamicPartitionsDefinition(name="batches")
days = dg.DailyPartitionsDefinition(start_date=load_settings().intake.first_day.isoformat())


def arrivals(instance: dg.DagsterInstance, received: Sequence[Outcome]) -> list[Outcome]:
    """The batches that Dagster does not know yet, however they came."""
    known = set(instance.get_dynamic_partitions("batches"))
    return [outcome for outcome in received if outcome.summary["batch"] not in known]


def events(arrived: Sequence[Outcome], *, expected: Sequence[str]) -> list[dg.AssetMaterialization]:
    """What Dagster notes of new batches: the batch, and that its site sent something where the site is expected to."""
    noted = [
        dg.AssetMaterialization("batch", partition=one.summary["batch"], metadata=metadata(one)) for one in arrived
    ]
    for site in sorted({one.summary["site"] for one in arrived} & set(expected)):
        files = sum(int(one.summary["files"]) for one in arrived if one.summary["site"] == site)
        noted.append(dg.AssetMaterialization(["feed", site], metadata={"files": files}))
    return noted
