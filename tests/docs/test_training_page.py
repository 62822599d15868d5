"""docs/guide/training.md has every recipe, and every field of one."""

from __future__ import annotations

import re

import pytest

from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.training.recipe import Filter, OptimizerSettings, Phase, Recipe, World
from tests.docs.pages import DOCS

TEXT = (DOCS / "guide" / "training.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (`\w[^|]*) \| (.*) \|$", TEXT, re.MULTILINE))
"""Of its tables: what stands in the first column, and the rest of the row."""
RECIPE = {name: row for names, row in ROWS.items() for name in re.findall(r"`([\w-]+)`", names)}


@pytest.mark.parametrize("name", [*config_names("recipe"), *Recipe.model_fields])
def test_every_recipe_and_every_field_has_its_row(name):
    assert RECIPE[name]


@pytest.mark.parametrize(
    ("row", "record"), [("optimizer", OptimizerSettings), ("relevance", Filter), ("world", World), ("phases", Phase)]
)
def test_every_field_inside_a_field_stands_in_its_row(row, record):
    assert {*record.model_fields} <= {*re.findall(r"`(\w+)`", RECIPE[row])}


@pytest.mark.parametrize("name", ["ramp", "divergence", "likelihood", "memory", "start", "gold", "distractors", "keep"])
def test_every_choice_of_a_field_is_named(name):
    choices = Recipe.model_json_schema()["properties"][name]["enum"]
    assert {*choices} <= {*re.findall(r"`(\w+)`", RECIPE[name])}
