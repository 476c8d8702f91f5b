"""Tables by id: what is read, lined up and refused. No message quotes an id or a value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.tables import by_id, common_findings, label_values, read_table, rows_for, score_values, write_table


class TestReadTable:
    def test_the_first_column_is_the_id_whatever_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("Image Index,Edema\n007,1\n8,0\n")
        table = read_table(tmp_path / "a.csv")
        assert table.index.tolist() == ["007", "8"]
        assert table["Edema"].tolist() == [1, 0]

    def test_doubled_ids_are_refused_without_naming_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,Edema\nDUPONT,1\nDUPONT,0\n")
        with pytest.raises(UnmatchedIds, match="1 ids stand there more than once") as caught:
            read_table(tmp_path / "a.csv")
        assert "DUPONT" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "id,Edema\n"])
    def test_a_file_without_rows_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(LabelError):
            read_table(tmp_path / "a.csv")

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="does not exist"):
            read_table(tmp_path / "a.csv")

    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        table = pd.DataFrame({"id": ["a,b", "c"], "Edema": [0.1, np.nan]})
        write_table(table, tmp_path / "a.csv")
        pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), table.set_index("id"))


class TestValues:
    def test_common_findings_keep_the_order_of_the_first_table(self) -> None:
        first, second = pd.DataFrame(columns=["B", "A", "C"]), pd.DataFrame(columns=["A", "B"])
        assert common_findings(first, second) == ("B", "A")

    def test_no_common_finding_is_refused(self) -> None:
        with pytest.raises(UnknownFinding):
            common_findings(pd.DataFrame(columns=["A"]), pd.DataFrame(columns=["B"]))

    def test_text_where_a_number_should_be_is_refused(self) -> None:
        with pytest.raises(BadLabelValue, match="something else than numbers"):
            label_values(pd.DataFrame({"A": ["yes"]}), ["A"], name="labels")

    @pytest.mark.parametrize("value", [-0.1, 1.01])
    def test_a_score_outside_0_and_1_needs_the_flag(self, value: float) -> None:
        table = pd.DataFrame({"A": [value, 0.5]})
        with pytest.raises(BadLabelValue, match="--scores"):
            score_values(table, ["A"], name="P")
        assert score_values(table, ["A"], name="P", ranks_only=True)[0, 0] == value

    def test_a_blank_score_is_refused_even_as_a_rank(self) -> None:
        with pytest.raises(BadLabelValue, match="blank"):
            score_values(pd.DataFrame({"A": [np.nan]}), ["A"], name="P", ranks_only=True)

    def test_missing_rows_are_counted(self) -> None:
        table = by_id(pd.DataFrame({"id": ["a"], "A": [1]}), name="P")
        with pytest.raises(UnmatchedIds, match="1 of 2 ids"):
            rows_for(table, pd.Index(["a", "b"]), name="P")
