"""Sheets that show nothing, a log that is never changed, decisions, and the weight of each read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from radia.errors import BadLabelValue, BiasedReads, LabelError, UnknownFinding, UnmatchedIds
from radia.estimate import noisy_set
from radia.read_log import (
    ADJUDICATOR,
    AGAIN,
    REVISED,
    decide,
    disagreements,
    export_blind,
    gold,
    import_reads,
    inclusion,
    open_for,
    status,
    summary,
    true_labels,
)

QUEUE = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "a"],
        "queue": ["evaluation", "evaluation", "evaluation", "cleaning", "repeat"],
        "sampling_probability": [0.2, 0.5, 0.4, np.nan, np.nan],
        "draw": 1,
    }
)
DESIGN = pd.DataFrame({"draw": 1, "id": list("abcxyz"), "sampling_probability": [0.2, 0.5, 0.4, 0.3, 0.8, 0.8]})


def _sheet(**values: float) -> pd.DataFrame:
    return pd.DataFrame({"Edema": values}).rename_axis("id").reset_index()


def _log(*reads: tuple[str, dict[str, float]], **options: object) -> pd.DataFrame:
    log = None
    for reader, values in reads:
        log = import_reads(_sheet(**values), reader=reader, queue=QUEUE, log=log, **options)  # type: ignore[arg-type]
    assert log is not None
    return log


TWO = _log(("r1", {"a": 1, "b": 0, "c": 1}), ("r2", {"a": 1, "b": 1}))


class TestSheets:
    def test_a_sheet_shows_no_label_score_queue_or_vote(self) -> None:
        sheet = export_blind(QUEUE, ["Edema", "Fracture"], images={"a": "clean/a.dcm"})
        assert sheet.columns.tolist() == ["id", "image", "Edema", "Fracture"]
        assert sheet[["Edema", "Fracture"]].isna().all(axis=None)
        assert sorted(sheet["id"]) == ["a", "b", "c", "d"]

    def test_the_order_depends_on_the_seed_alone(self) -> None:
        long = pd.DataFrame({"id": [f"s{number}" for number in range(40)]})
        assert export_blind(long, ["E"], seed=1).equals(export_blind(long, ["E"], seed=1))
        assert list(export_blind(long, ["E"], seed=1)["id"]) != list(export_blind(long, ["E"], seed=2)["id"])

    def test_a_reader_is_given_what_lacks_readers_and_is_not_his_own(self) -> None:
        assert set(open_for("r1", QUEUE, TWO)["id"]) == {"d"}
        assert set(open_for("r3", QUEUE, TWO)["id"]) == {"c", "d"}
        assert set(open_for("r3", QUEUE, None)["id"]) == {"a", "b", "c", "d"}

    def test_an_adjudicator_is_given_the_disagreements_of_others(self) -> None:
        assert set(open_for("chief", QUEUE, TWO, role=ADJUDICATOR)["id"]) == {"b"}
        assert open_for("r1", QUEUE, TWO, role=ADJUDICATOR).empty
        assert disagreements(TWO) == {"b": "Edema"}

    def test_a_second_look_is_at_what_this_reader_read(self) -> None:
        assert set(open_for("r1", QUEUE, TWO, role=AGAIN)["id"]) == {"a"}
        assert open_for("r3", QUEUE, TWO, role=AGAIN).empty


class TestImport:
    def test_the_same_sheet_twice_changes_nothing(self) -> None:
        again = import_reads(_sheet(a=1, b=0, c=1), reader="r1", queue=QUEUE, log=TWO)
        assert again.equals(TWO)

    def test_what_stands_beside_the_findings_is_left_out(self) -> None:
        sheet = _sheet(a=1).assign(image="clean/a.dcm", to_decide="Edema")
        assert import_reads(sheet, reader="r1", queue=QUEUE)["finding"].tolist() == ["Edema"]

    def test_each_read_keeps_its_queue_and_its_sampling_probability(self) -> None:
        log = _log(("r1", {"a": 1, "d": 0})).set_index("id")
        assert log.loc["a", ["queue", "sampling_probability"]].tolist() == ["evaluation", 0.2]
        assert log.loc["d", "queue"] == "cleaning"
        assert np.isnan(log.loc["d", "sampling_probability"])

    def test_a_reader_who_contradicts_himself_is_refused(self) -> None:
        with pytest.raises(LabelError, match="1 reads of this reader contradict"):
            import_reads(_sheet(a=0), reader="r1", queue=QUEUE, log=TWO)

    def test_a_blind_read_does_not_become_one_with_the_model_visible(self) -> None:
        with pytest.raises(LabelError, match="contradict"):
            import_reads(_sheet(a=1), reader="r1", queue=QUEUE, log=TWO, model_visible=True)

    def test_a_study_that_nobody_queued_is_refused_without_its_id(self) -> None:
        with pytest.raises(UnmatchedIds, match="1 of 1 ids were not queued") as raised:
            import_reads(_sheet(zebra=1), reader="r1", queue=QUEUE)
        assert "zebra" not in str(raised.value)

    def test_a_value_of_two_is_refused(self) -> None:
        with pytest.raises(BadLabelValue):
            import_reads(_sheet(a=2), reader="r1", queue=QUEUE)

    def test_an_unknown_finding_is_refused_where_findings_are_known(self) -> None:
        with pytest.raises(UnknownFinding, match="Edema"):
            import_reads(_sheet(a=1), reader="r1", queue=QUEUE, findings=["Fracture"])

    @pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
    def test_a_read_needs_a_name(self, name: str) -> None:
        with pytest.raises(LabelError, match="name"):
            import_reads(_sheet(a=1), reader=name, queue=QUEUE)

    def test_an_adjudicator_comes_after_two_readers(self) -> None:
        with pytest.raises(LabelError, match="1 studies lack 2 independent readers"):
            import_reads(_sheet(c=1), reader="chief", queue=QUEUE, log=TWO, role=ADJUDICATOR)

    def test_nobody_adjudicates_his_own_read(self) -> None:
        with pytest.raises(LabelError, match="read by this person"):
            import_reads(_sheet(b=1), reader="r1", queue=QUEUE, log=TWO, role=ADJUDICATOR)

    def test_a_second_look_needs_a_first_one(self) -> None:
        with pytest.raises(LabelError, match="not read them before"):
            import_reads(_sheet(a=1), reader="r3", queue=QUEUE, log=TWO, role=AGAIN)

    def test_a_second_look_is_kept_apart_and_decides_nothing(self) -> None:
        log = import_reads(_sheet(a=0), reader="r1", queue=QUEUE, log=TWO, role=AGAIN)
        assert log.iloc[-1]["queue"] == "repeat"
        assert decide(log).equals(decide(TWO))
        assert status(QUEUE, log).equals(status(QUEUE, TWO))


class TestTheLastWord:
    DECIDED = import_reads(_sheet(b=0), reader="chief", queue=QUEUE, log=TWO, role=ADJUDICATOR)

    def test_a_second_adjudicator_is_refused_also_where_he_agrees(self) -> None:
        for value in (0, 1):
            with pytest.raises(LabelError, match="decided by another adjudicator"):
                import_reads(_sheet(b=value), reader="other", queue=QUEUE, log=self.DECIDED, role=ADJUDICATOR)

    def test_the_same_adjudicator_twice_adds_nothing(self) -> None:
        again = import_reads(_sheet(b=0), reader="chief", queue=QUEUE, log=self.DECIDED, role=ADJUDICATOR)
        assert again.equals(self.DECIDED)


class TestLaterChanges:
    def test_are_rows_of_their_own_and_decide_nothing(self) -> None:
        log = import_reads(_sheet(a=0), reader="r1", queue=QUEUE, log=TWO, role=REVISED, model_visible=True)
        assert log.iloc[:-1].equals(TWO)
        assert log.iloc[-1][["reader", "value", "role", "model_visible"]].tolist() == ["r1", 0, "revised", True]
        assert decide(log).equals(decide(TWO))
        assert status(QUEUE, log).equals(status(QUEUE, TWO))

    def test_back_and_forth_leaves_every_change_and_none_where_nothing_changed(self) -> None:
        log = TWO
        for value in (1, 0, 0, 1):
            log = import_reads(_sheet(a=value), reader="r1", queue=QUEUE, log=log, role=REVISED, model_visible=True)
        assert log[log["role"] == REVISED]["value"].tolist() == [0, 1]

    def test_nobody_revises_what_he_has_not_read(self) -> None:
        with pytest.raises(LabelError, match="cannot be revised"):
            import_reads(_sheet(d=0), reader="r1", queue=QUEUE, log=TWO, role=REVISED)


class TestDecisions:
    def test_two_readers_who_agree_settle_a_study(self) -> None:
        states = status(QUEUE, TWO).set_index("id")["state"].to_dict()
        assert states == {"a": "settled", "b": "disagreement", "c": "partly read", "d": "waiting"}

    def test_with_one_reader_needed_one_settles(self) -> None:
        states = status(QUEUE, _log(("r1", {"c": 1})), readers_needed=1).set_index("id")["state"]
        assert states["c"] == "settled"

    def test_a_finding_that_the_second_reader_left_blank_keeps_the_study_open(self) -> None:
        both = pd.DataFrame({"id": ["a"], "Edema": [1.0], "Fracture": [0.0]})
        log = import_reads(both, reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=1), reader="r2", queue=QUEUE, log=log)
        assert status(QUEUE, log).set_index("id").loc["a", "state"] == "partly read"

    def test_a_disagreement_goes_to_the_adjudicator_before_what_is_left_blank_is_read(self) -> None:
        first = pd.DataFrame({"id": ["a"], "Edema": [1.0], "Fracture": [0.0]})
        log = import_reads(first, reader="r1", queue=QUEUE)
        log = import_reads(_sheet(a=0), reader="r2", queue=QUEUE, log=log)
        assert status(QUEUE, log).set_index("id").loc["a", "state"] == "disagreement"
        log = import_reads(_sheet(a=1), reader="chief", queue=QUEUE, log=log, role=ADJUDICATOR)
        assert status(QUEUE, log).set_index("id").loc["a", "state"] == "partly read"

    def test_the_adjudicator_has_the_last_word(self) -> None:
        assert np.isnan(decide(TWO, readers_needed=2).set_index("id").loc["b", "value"])
        log = import_reads(_sheet(b=0), reader="chief", queue=QUEUE, log=TWO, role=ADJUDICATOR)
        decided = decide(log, readers_needed=2).set_index("id").loc["b"]
        assert decided[["value", "readers", "adjudicated", "open"]].tolist() == [0, 3, True, False]
        assert status(QUEUE, log).set_index("id").loc["b", "state"] == "settled"

    def test_a_third_reader_may_settle_a_disagreement(self) -> None:
        log = import_reads(_sheet(b=1), reader="r3", queue=QUEUE, log=TWO)
        assert decide(log, readers_needed=2).set_index("id").loc["b", "value"] == 1

    def test_an_uncertain_vote_is_for_neither(self) -> None:
        log = _log(("r1", {"a": 1}), ("r2", {"a": -1}))
        decided = decide(log, readers_needed=2).iloc[0]
        assert np.isnan(decided["value"])
        assert decided["open"]

    def test_an_adjudicator_may_leave_it_undecided(self) -> None:
        log = import_reads(_sheet(b=-1), reader="chief", queue=QUEUE, log=TWO, role=ADJUDICATOR)
        decided = decide(log, readers_needed=2).set_index("id").loc["b"]
        assert np.isnan(decided["value"])
        assert not decided["open"]

    def test_a_read_with_the_model_visible_does_not_decide(self) -> None:
        log = _log(("r1", {"a": 1}), model_visible=True)
        assert decide(log).empty
        assert status(QUEUE, log).set_index("id").loc["a", "state"] == "waiting"
        assert summary(log)["model_visible"] == 1


class TestTrueLabels:
    def test_they_keep_the_sampling_probability_and_the_number_of_readers(self) -> None:
        labels = true_labels(TWO, readers_needed=2).set_index("id")
        assert labels.index.tolist() == ["a"]
        assert labels.loc["a"].to_dict() == {
            "Edema": 1.0, "readers": 2, "queue": "evaluation", "sampling_probability": 0.2, "source": "file",
        }  # fmt: skip

    def test_reads_chosen_by_the_model_cannot_be_estimated_from(self) -> None:
        given = pd.DataFrame({"Edema": [1.0, 0.0, 1.0, 0.0]}, index=list("abcd"))
        probs = pd.DataFrame({"Edema": [0.9, 0.2, 0.7, 0.3]}, index=list("abcd"))
        log = _log(("r1", {"a": 1, "d": 0}))
        with pytest.raises(BiasedReads, match="chosen by a model"):
            noisy_set(given, probs, true_labels(log))
        only_cleaning = true_labels(log).query("id == 'd'").drop(columns="queue")
        with pytest.raises(BiasedReads, match="sampling_probability"):
            noisy_set(given, probs, only_cleaning)
        assert noisy_set(given, probs, gold(log, QUEUE, DESIGN, readers_needed=1)).rows.tolist() == [0]


class TestGold:
    def test_only_the_evaluation_queue_counts(self) -> None:
        log = _log(("r1", {"a": 1, "b": 0, "c": 1, "d": 1}), ("r2", {"a": 1, "b": 0, "c": 1, "d": 1}))
        assert set(gold(log, QUEUE, DESIGN)["id"]) == {"a", "b", "c"}

    def test_what_is_read_of_a_draw_counts_as_a_random_part_of_it(self) -> None:
        weights = gold(TWO, QUEUE, DESIGN).set_index("id")["sampling_probability"]
        assert weights["a"] == pytest.approx(0.2 / 3)

    def test_the_probability_over_two_draws_is_that_of_either(self) -> None:
        queue = pd.concat([QUEUE, pd.DataFrame({"id": ["x"], "queue": "evaluation", "draw": 2})])
        second = pd.DataFrame({"draw": 2, "id": list("abcx"), "sampling_probability": 0.25})
        chances = inclusion(queue, pd.concat([DESIGN, second]), {"a", "b", "c", "x"})
        assert chances["a"] == pytest.approx(1 - 0.8 * 0.75)
        assert chances["y"] == pytest.approx(0.8)

    def test_a_draw_that_nobody_has_read_yet_changes_nothing(self) -> None:
        queue = pd.concat([QUEUE, pd.DataFrame({"id": ["x"], "queue": "evaluation", "draw": 2})])
        second = pd.DataFrame({"draw": 2, "id": list("abcx"), "sampling_probability": 0.25})
        before = inclusion(QUEUE, DESIGN, {"a", "b", "c"})
        after = inclusion(queue, pd.concat([DESIGN, second]), {"a", "b", "c"})
        pd.testing.assert_series_equal(after[before.index], before)

    def test_weights_of_many_drawn_samples_add_up_to_the_studies(self) -> None:
        chance = np.random.default_rng(0)
        ids = np.array([f"s{number}" for number in range(60)])
        sums = []
        for _ in range(300):
            designs, queue, read = [], [], set()
            for draw in (1, 2):
                wanted = chance.uniform(0.1, 0.6, 60) if draw == 1 else np.linspace(0.5, 0.1, 60)
                chosen = ids[chance.random(60) < wanted]
                designs.append(pd.DataFrame({"draw": draw, "id": ids, "sampling_probability": wanted}))
                fresh = [study for study in chosen if study not in read]
                queue.append(pd.DataFrame({"id": fresh, "queue": "evaluation", "draw": draw}))
                read |= set(chosen)
            chances = inclusion(pd.concat(queue), pd.concat(designs), read)
            sums.append((1 / chances[sorted(read)]).sum())
        assert np.mean(sums) == pytest.approx(60, rel=0.05)
