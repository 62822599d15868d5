"""Recipes: ours are whole, every field can be changed, and what cannot be is refused."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.training.recipe import read_recipe
from glimmer_export.runtime.contract import OptionError


@pytest.mark.parametrize("name", config_names("recipe"))
def test_each_of_ours_is_a_recipe(name):
    recipe = read_recipe(name)
    schedule = recipe.schedule()
    assert sum(phase.steps for phase in schedule) == (recipe.steps or sum(phase.steps for phase in recipe.phases))
    assert all(phase.batch_size and phase.learning_rate and phase.ramp for phase in schedule)


def test_the_glimmer_paper():
    recipe = read_recipe("glimmer-paper")
    assert (recipe.batch_size, recipe.learning_rate, recipe.dropout) == (128, 1e-4, 0.1)
    assert (recipe.question_length, recipe.passage_length) == (48, 304)
    assert (recipe.ranking_weight, recipe.temperature) == (1, 1)
    assert (recipe.divergence, recipe.likelihood, recipe.optimizer.name) == ("rank_to_lm", "sum", "adafactor")


def test_changes_are_yaml_at_a_dotted_path():
    inside = ("optimizer.name=sgd", "phases.1.steps=7", "world.options.facts_per_passage=1")
    recipe = read_recipe("demo", ["learning_rate=2e-3", *inside])
    assert (recipe.learning_rate, recipe.optimizer.name, recipe.phases[1].steps) == (2e-3, "sgd", 7)
    assert recipe.world.options == {"facts_per_passage": 1}
    assert recipe.optimizer.weight_decay == read_recipe("demo").optimizer.weight_decay


def test_steps_cut_phases_off():
    schedule = read_recipe("demo", ["steps=1310"]).schedule()
    assert [phase.steps for phase in schedule] == [100, 1200, 10]


def test_a_phase_has_the_recipes_fields_where_it_has_none():
    phases = "phases=[{steps: 1}, {steps: 2, batch_size: 3, learning_rate: 0.0, ramp: linear, tasks: [nq]}]"
    first, second = read_recipe("glimmer-paper", [phases]).schedule()
    assert (first.batch_size, first.learning_rate, first.ramp, first.tasks) == (128, 1e-4, "constant", None)
    assert (second.batch_size, second.learning_rate, second.ramp, second.tasks) == (3, 0.0, "linear", ("nq",))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("speed=1", "speed: Extra inputs"), ("steps=many", "steps: Input should be a valid integer"),
        ("steps=0", "greater than or equal to 1"), ("dropout=1.0", "less than 1"), ("steps", "no value"),
        ("phases.99.steps=1", "nothing at 99"), ("phases.0={}", "a whole phase at 0"), ("=1", "no field"),
        ("steps.x=1", "nothing at steps"), ("phases.0.steps.x=1", "has no fields"), ("steps=[", "while parsing"),
        ("optimizer.momentum=1", "Extra inputs"),
        ("divergence=both", "rank_to_lm"), ("phases=[{steps: 1, tasks: []}]", "at least 1 item"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be(change, found):
    with pytest.raises(OptionError) as refused:
        read_recipe("demo", [change])
    assert found in str(refused.value)


def test_a_recipe_without_an_end(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("batch_size: 3\n")
    with pytest.raises(OptionError, match="steps is missing"):
        read_recipe(str(path))
    path.write_text("batch_size: 3\nsteps: 100\n")
    assert read_recipe(str(path)).steps == 100


