"""Lineage as OpenLineage and PROV-JSON."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from radia.exchange import to_openlineage, to_prov
from radia.ledger import Event, Ledger


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.append(
        "snapshot", actor="radia", inputs={"HND-1": "1" * 64}, outputs={"snapshot": "2" * 64}, subjects=["P1"]
    )
    ledger.append("finetune", actor="gpu", inputs={"snapshot": "2" * 64}, outputs={"checkpoint": "3" * 64})
    ledger.append("promote", actor="Dr Côté", inputs={"cxr-candidate/1": "4" * 32}, outputs={"cxr/2": "4" * 32})
    return ledger.events()


class TestOpenLineage:
    def test_every_step_starts_and_completes_under_one_run(self, events: list[Event]) -> None:
        found = to_openlineage(events)
        assert [(one["job"]["name"], one["eventType"]) for one in found[:4]] == [
            ("snapshot", "START"),
            ("snapshot", "COMPLETE"),
            ("finetune", "START"),
            ("finetune", "COMPLETE"),
        ]
        assert found[0]["run"]["runId"] == found[1]["run"]["runId"] != found[2]["run"]["runId"]

    def test_what_one_step_made_another_took(self, events: list[Event]) -> None:
        _, snapshot, _, finetune, *_ = to_openlineage(events)
        [made], [taken] = snapshot["outputs"], finetune["inputs"]
        assert (made["namespace"], made["name"]) == (taken["namespace"], taken["name"]) == ("radia", "2" * 64)

    def test_has_what_the_specification_requires(self, events: list[Event]) -> None:
        for one in json.loads(json.dumps(to_openlineage(events))):
            assert {"eventTime", "producer", "schemaURL", "run", "job"} <= one.keys()
            assert uuid.UUID(one["run"]["runId"])
            assert datetime.fromisoformat(one["eventTime"]).tzinfo is not None
            facets = [*one["run"]["facets"].values()]
            facets += [facet for data in (*one["inputs"], *one["outputs"]) for facet in data["facets"].values()]
            assert all(re.match("urn:|https://", facet["_producer"]) and facet["_schemaURL"] for facet in facets)

    def test_says_nothing_of_patients(self, events: list[Event]) -> None:
        assert "P1" not in json.dumps([to_openlineage(events), to_prov(events)])


class TestProv:
    def test_binds_activities_entities_and_agents(self, events: list[Event]) -> None:
        document = to_prov(events)
        assert document["activity"]["radia:event-2"]["prov:type"] == "radia finetune"
        used = {(one["prov:activity"], one["prov:entity"]) for one in document["used"].values()}
        made = {(one["prov:entity"], one["prov:activity"]) for one in document["wasGeneratedBy"].values()}
        assert ("radia:event-2", f"radia:{'2' * 64}") in used
        assert (f"radia:{'2' * 64}", "radia:event-1") in made
        assert {agent["prov:label"]: agent["prov:type"]["$"] for agent in document["agent"].values()} == {
            "radia": "prov:SoftwareAgent",
            "gpu": "prov:SoftwareAgent",
            "Dr Côté": "prov:Person",
        }

    def test_every_end_of_a_relation_is_described(self, events: list[Event]) -> None:
        document = to_prov(events)
        known = {**document["entity"], **document["activity"], **document["agent"]}
        for kind in ("used", "wasGeneratedBy", "wasAssociatedWith"):
            for relation in document[kind].values():
                assert all(end in known for name, end in relation.items() if name != "prov:time")
