"""What projections leave of an item."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.expressions import compile_expressions

ITEM: dict[str, Any] = {
    "pk": {"S": "k"},
    "m": {"M": {"x": {"N": "1"}, "y": {"M": {"z": {"S": "deep"}, "w": {"S": "other"}}}}},
    "l": {"L": [{"S": "0"}, {"S": "1"}, {"M": {"a": {"N": "2"}, "b": {"N": "3"}}}]},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pk", {"pk": {"S": "k"}}),
        ("pk, q", {"pk": {"S": "k"}}),
        ("q", {}),
        ("m.y.z", {"m": {"M": {"y": {"M": {"z": {"S": "deep"}}}}}}),
        ("m.x, m.y.w", {"m": {"M": {"x": {"N": "1"}, "y": {"M": {"w": {"S": "other"}}}}}}),
        ("m.q", {}),
        ("m.y.q, pk", {"pk": {"S": "k"}}),
        ("m[0]", {}),
        ("l.x", {}),
        ("l[0]", {"l": {"L": [{"S": "0"}]}}),
        # In the list's order and without gaps, whatever was asked.
        ("l[1], l[7], l[0]", {"l": {"L": [{"S": "0"}, {"S": "1"}]}}),
        # Several parts of one element stay one element.
        ("l[2].b, l[2].a", {"l": {"L": [{"M": {"a": {"N": "2"}, "b": {"N": "3"}}}]}}),
        ("l[2].a, l[0]", {"l": {"L": [{"S": "0"}, {"M": {"a": {"N": "2"}}}]}}),
        ("l[0].a, l[9]", {}),
    ],
)
def test_projection(text: str, wanted: dict[str, Any]) -> None:
    projection = compile_expressions(projection=text).projection
    assert projection is not None
    assert projection.project(ITEM) == wanted


def test_names() -> None:
    projection = compile_expressions(projection="b, #a.c, l[0]", names={"#a": "a"}).projection
    assert projection is not None
    assert projection.top_level_names == {"a", "b", "l"}
    assert projection.nested == ("a", "l")
    assert projection.paths == (("b",), ("a", "c"), ("l", 0))


def test_projecting_changes_nothing() -> None:
    projection = compile_expressions(projection="m.x").projection
    assert projection is not None
    kept = projection.project(ITEM)
    kept["m"]["M"]["new"] = {"S": "x"}
    assert "new" not in ITEM["m"]["M"]
