"""Lineage as OpenLineage and PROV-JSON."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import attr
import jsonschema
import pytest
from openlineage.client.generated import base
from openlineage.client.generated.documentation_dataset import DocumentationDatasetFacet
from prov.model import ProvDocument

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


def as_specified(event: dict[str, Any]) -> base.RunEvent:
    """The event in the classes that OpenLineage generates from its schema 2-0-2 (openlineage-python, Apache-2.0).

    They refuse what is missing, what is not of the schema, and ids, times and kinds of another form.
    """
    left = dict(event)
    run, job, kind = left.pop("run"), left.pop("job"), left.pop("eventType", None)
    for facet in run.get("facets", {}).values():
        faceted(base.RunFacet, facet, free=True)
    taken = [dataset(base.InputDataset, one) for one in left.pop("inputs", [])]
    made = [dataset(base.OutputDataset, one) for one in left.pop("outputs", [])]
    schema = left.pop("schemaURL")
    found = base.RunEvent(
        run=base.Run(**{**run, "facets": {}}),
        job=base.Job(**job),
        eventType=None if kind is None else base.EventType(kind),
        inputs=taken,
        outputs=made,
        **left,
    )
    assert found.schemaURL == schema
    return found


def dataset(kind: type[base.Dataset], one: dict[str, Any]) -> base.Dataset:
    for name, facet in one.get("facets", {}).items():
        faceted({"documentation": DocumentationDatasetFacet}[name], facet)
    return kind(**{**one, "facets": {}})


def faceted(kind: type[base.BaseFacet], facet: dict[str, Any], *, free: bool = False) -> None:
    """A facet's producer and schema, and its fields; a facet of one's own (`free`) may have any."""
    left = dict(facet)
    assert {"_producer", "_schemaURL"} <= left.keys()
    assert re.fullmatch(r"(https://|urn:)\S+", left.pop("_schemaURL"))
    kind(producer=left.pop("_producer"), **({} if free else left))


class TestOpenLineage:
    def test_is_of_the_form_that_openlineage_specifies(self, events: list[Event]) -> None:
        for one in json.loads(json.dumps(to_openlineage(events))):
            assert attr.asdict(as_specified(one))["eventTime"] == one["eventTime"]

    @pytest.mark.parametrize(
        "change",
        [
            {"eventTime": "yesterday"},
            {"eventType": "DONE"},
            {"run": {"runId": "7"}},
            {"job": {"name": "snapshot"}},
            {"inputs": [{"name": "1"}]},
            {"outputs": [{"namespace": "radia", "name": "1", "facets": {"documentation": {"description": "x"}}}]},
            {"actor": "radia"},
        ],
    )
    def test_of_another_form_is_seen(self, events: list[Event], change: dict[str, Any]) -> None:
        with pytest.raises((TypeError, ValueError, AssertionError)):
            as_specified({**to_openlineage(events)[0], **change})

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
    @pytest.fixture
    def schema(self) -> jsonschema.Draft4Validator:
        """PROV-JSON's schema (W3C member submission of 24 April 2013), as the package `prov` (MIT) carries it."""
        text = files("prov").joinpath("tests/schemas/prov-json.schema.json").read_text(encoding="utf-8")
        assert json.loads(text)["$schema"].startswith("http://json-schema.org/draft-04/schema")
        return jsonschema.Draft4Validator(json.loads(text), format_checker=jsonschema.FormatChecker())

    def test_is_valid_against_its_published_schema(
        self, events: list[Event], schema: jsonschema.Draft4Validator
    ) -> None:
        assert [error.message for error in schema.iter_errors(json.loads(json.dumps(to_prov(events))))] == []

    def test_of_another_form_is_seen(self, events: list[Event], schema: jsonschema.Draft4Validator) -> None:
        document = to_prov(events)
        next(iter(document["wasGeneratedBy"].values())).pop("prov:entity")
        assert not schema.is_valid(document)
        assert not schema.is_valid({**to_prov(events), "events": {}})

    def test_is_read_by_another_implementation_without_loss(self, events: list[Event]) -> None:
        written = to_prov(events)
        read = ProvDocument.deserialize(content=json.dumps(written), format="json")
        counted = {kind: len(found) for kind, found in json.loads(read.serialize()).items() if kind != "prefix"}
        assert counted == {kind: len(found) for kind, found in written.items() if kind != "prefix"}

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
