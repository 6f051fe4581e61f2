"""Grading schemes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcedge.counting.grading import ABSENT, GRADES, Steps, icsh_2015, load_scheme
from rbcedge.errors import RbcedgeError


@pytest.mark.parametrize(
    ("code", "percent", "grade"),
    [
        ("FRA", 0, "-"), ("FRA", 0.4, "1+"), ("FRA", 1, "2+"), ("FRA", 2, "2+"), ("FRA", 2.1, "3+"),
        ("TEA", 4.9, "-"), ("TEA", 5, "2+"), ("TEA", 20, "2+"), ("OVA", 20.1, "3+"), ("NOR", 90, ""),
    ],
)  # fmt: skip
def test_default_scheme(code: str, percent: float, grade: str) -> None:
    assert icsh_2015().grade(code, percent) == grade


@given(st.lists(st.floats(0, 100), min_size=3, max_size=3), st.floats(0, 100), st.floats(0, 100))
def test_grades_never_fall_with_the_share(steps: list[float], a: float, b: float) -> None:
    scheme = Steps(*sorted(steps))
    order = (ABSENT, *GRADES)
    assert order.index(scheme.grade(min(a, b))) <= order.index(scheme.grade(max(a, b)))
    assert scheme.grade(0) == ABSENT


def test_scheme_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scheme.json"
    path.write_text(json.dumps({"name": "ward 3", "steps": {"OVA": {"few": 2, "moderate": 6, "many": 15}}}))
    scheme = load_scheme(path)
    assert scheme.name == "ward 3"
    assert [scheme.grade("OVA", p) for p in (2, 2.1, 6, 15, 16)] == ["-", "1+", "2+", "2+", "3+"]
    assert scheme.grade("FRA", 50) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1"),
        ("[]", '"name" and "steps"'),
        ('{"name": "x", "steps": {}}', "steps"),
        ('{"name": " ", "steps": {"OVA": {"moderate": 1, "many": 2}}}', "name"),
        ('{"name": "x", "steps": {"OVA": {"many": 2}}}', "OVA"),
        ('{"name": "x", "steps": {"OVA": {"moderate": "5", "many": 2}}}', "must be a number"),
        ('{"name": "x", "steps": {"OVA": {"moderate": 5, "many": 2}}}', "OVA: few <= moderate <= many"),
        ('{"name": "x", "steps": {"OVA": {"moderate": 5, "many": 200}}}', "OVA"),
        ('{"name": "x", "steps": {"OVA": {"moderate": 5, "many": 20, "lots": 3}}}', "OVA"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "scheme.json"
    path.write_text(text)
    with pytest.raises(RbcedgeError, match=r"scheme\.json") as error:
        load_scheme(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RbcedgeError, match="cannot be read"):
        load_scheme(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RbcedgeError, match="not a text file"):
        load_scheme(tmp_path / "b.json")
