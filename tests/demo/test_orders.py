"""The ablations on the demo's world: what is run, and that their page says what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.training.recipe import read_recipe
from tests.demo.orders import ARMS, EVALUATIONS, ORDERS, RECIPE, Order, held, table

MEASUREMENTS = Path(__file__).parents[2] / "docs" / "measurements"
FOUND = json.loads((MEASUREMENTS / "ablations-demo.json").read_text(encoding="utf-8"))


def report(*, low: float, value: float, high: float) -> dict:
    """An evaluation of two arms, `b` compared with `a`."""
    ends = {"a": 0.5, "b": 0.5 + value}
    runs = [{"model": arm, "k": 10, "m": 3, "average": {"em": {"value": end}}} for arm, end in ends.items()]
    difference = {"average": {"em": {"value": value, "low": low, "high": high}}}
    return {"runs": runs, "differences": [{**runs[1], **difference, "to": {"model": "a", "k": 10, "m": 3}}]}


@pytest.mark.parametrize(
    ("low", "value", "high", "above", "not_below"),
    [(0.1, 0.2, 0.3, True, True), (-0.1, 0.2, 0.3, False, True), (-0.3, -0.2, -0.1, False, False)],
)
def test_an_order_holds_if_its_interval_says_so(low, value, high, above, not_below):
    found = report(low=low, value=value, high=high)
    a, b = ("a", 10, 3), ("b", 10, 3)
    assert held(Order("", "", a, b), found)["holds"] == above
    assert held(Order("", "", a, b, or_equal=True), found)["holds"] == not_below
    turned = held(Order("", "", b, a), found)
    assert turned["difference"] == {"value": -value, "low": -high, "high": -low}
    assert (turned["less"], turned["more"]) == (0.5 + value, 0.5)


def test_arms_that_are_asked_are_trained():
    read_recipe(RECIPE)
    asked = {arm for arms, _, _ in EVALUATIONS.values() for arm in arms.split()}
    assert asked == {*ARMS}
    for order in ORDERS:
        assert {order.less[0], order.more[0]} <= {*EVALUATIONS[order.evaluation][0].split()}


def test_the_page_has_what_was_found():
    assert table(FOUND) in (MEASUREMENTS / "ablations-demo.md").read_text(encoding="utf-8")
    assert {order["claim"] for order in FOUND["orders"]} <= {order.claim for order in ORDERS}
