"""Optimizers beside the formulas that they stand for, written out in numpy in double precision."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.exporter.training.optimizer import optimizer_from_settings, state_fault
from glimmer_export.exporter.training.recipe import OptimizerSettings
from tests.training.short import train_tiny

Array = NDArray[np.float64]
CLOSE = TOLERANCES["fp32"]
SHAPES = [(6, 9), (7,)]
RATE, STEPS = 1e-2, 5


def values(scale: float, seed: int) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) * scale for shape in SHAPES]


def gradients(scale: float) -> list[list[Array]]:
    """Of some steps, not all of one size; a row of zeros is a token that no text has."""
    found = [values(scale * (1 + step % 3), seed=10 + step) for step in range(STEPS)]
    for matrix, _ in found:
        matrix[2] = 0
    return found


def moved(
    make: OptimizerSettings | torch.optim.Optimizer, weights: Sequence[Array], steps: Sequence[Sequence[Array]]
) -> list[Array]:
    """How far torch's optimizer has moved parameters."""
    parameters = [torch.nn.Parameter(torch.from_numpy(each).float()) for each in weights]
    before = copy.deepcopy(parameters)
    optimizer = optimizer_from_settings(make, parameters) if isinstance(make, OptimizerSettings) else make(parameters)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    for step in steps:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(gradient).float()
        optimizer.step()
    return [(after.double() - each.double()).detach().numpy() for after, each in zip(parameters, before, strict=True)]


def rms(array: Array) -> float:
    return math.sqrt(float((array**2).mean()))


def adafactor(weight: Array, steps: Sequence[Array], decay: float = 0.0) -> Array:
    """Shazeer and Stern 2018, algorithms 4 and 5, with a given rate, as T5X's `adafactor.py` has it."""
    now, row, column, whole = weight.copy(), 0.0, 0.0, 0.0
    for number, gradient in enumerate(steps, start=1):
        beta = 1 - number**-0.8
        square = gradient**2 + 1e-30
        scale = max(1e-3, rms(now)) * RATE
        now = now * (1 - RATE * decay)
        if gradient.ndim > 1:
            row = beta * row + (1 - beta) * square.mean(1)
            column = beta * column + (1 - beta) * square.mean(0)
            update = gradient / np.sqrt(np.outer(row, column) / row.mean())
        else:
            whole = beta * whole + (1 - beta) * square
            update = gradient / np.sqrt(whole)
        now = now - scale * update / max(1.0, rms(update))
    return now - weight


def adamw(weight: Array, steps: Sequence[Array], decay: float = 0.0) -> Array:
    """Loshchilov and Hutter 2019, algorithm 2."""
    now, first, second = weight.copy(), 0.0, 0.0
    for number, gradient in enumerate(steps, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        update = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        now = now * (1 - RATE * decay) - RATE * update
    return now - weight


def sgd(weight: Array, steps: Sequence[Array], decay: float = 0.0) -> Array:
    now = weight.copy()
    for gradient in steps:
        now = now - RATE * (gradient + decay * now)
    return now - weight


FORMULAS = {"adafactor": adafactor, "adamw": adamw, "sgd": sgd}


def limit(wanted: Array, weight: Array) -> float:
    """The tolerance, and what rounding the weights themselves may add at each step."""
    return CLOSE.rtol * float(np.abs(wanted).max()) + STEPS * 2.0**-24 * float(np.abs(weight).max())


SCALED = [("sgd", 1.0), *((name, scale) for name in ("adafactor", "adamw") for scale in (1.0, 1e-3, 1e-5))]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "scale"), SCALED)
def test_steps_are_those_of_the_formula(name, decay, scale):
    """Also for gradients as small as a large model's are, whose norm of 1 is shared by 1e9 weights."""
    weights, steps = values(0.3, seed=1), gradients(scale)
    found = moved(OptimizerSettings(name=name, weight_decay=decay), weights, steps)
    for place, weight in enumerate(weights):
        wanted = FORMULAS[name](weight, [step[place] for step in steps], decay)
        assert np.abs(found[place] - wanted).max() <= limit(wanted, weight)


def test_weights_of_nothing_move_by_the_least_scale():
    weights = [np.zeros(shape) for shape in SHAPES]
    found = moved(OptimizerSettings(name="adafactor"), weights, gradients(1.0)[:1])
    assert rms(found[1]) == pytest.approx(1e-3 * RATE, rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_adafactor_is_that_of_transformers_without_its_schedule(scale):
    transformers = pytest.importorskip("transformers.optimization")

    def theirs(parameters):
        return transformers.Adafactor(
            parameters, lr=RATE, scale_parameter=True, relative_step=False, warmup_init=False
        )

    weights, steps = values(0.3, seed=1), gradients(scale)
    ours, wanted = moved(OptimizerSettings(name="adafactor"), weights, steps), moved(theirs, weights, steps)
    for place, weight in enumerate(weights):
        assert np.abs(ours[place] - wanted[place]).max() <= limit(wanted[place], weight)


def lengths(before, after) -> float:
    return math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))


@pytest.mark.parametrize("most", [None, 0.5])
def test_gradients_are_cut_to_the_recipes_norm_or_left(checkpoint, given_rows, tmp_path, most):
    train_tiny(
        checkpoint, given_rows, tmp_path / "out", steps=1, optimizer={"name": "sgd", "max_gradient_norm": most}
    )
    (line,) = (tmp_path / "out" / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    norm = json.loads(line)["gradient_norm"]
    assert norm > 5
    step = lengths(checkpoint.tensors, read_checkpoint(tmp_path / "out").tensors)
    assert step == pytest.approx(1e-3 * (most or norm), rel=1e-3)


def state_of(name: str) -> tuple[OptimizerSettings, torch.optim.Optimizer, dict]:
    settings = OptimizerSettings(name=name)
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    optimizer = optimizer_from_settings(settings, parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    return settings, optimizer, state if name != "sgd" else {**state, "state": {0: {"momentum_buffer": None}}}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_state_of_the_optimizer_itself_fits(name):
    settings, optimizer, state = state_of(name)
    assert state_fault(settings, optimizer, state) is None
    assert state_fault(settings, optimizer, {**state, "state": {}}) is None  # of before the first step


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("other", FORMULAS)
def test_the_state_of_another_optimizer_does_not(name, other):
    settings, optimizer, _ = state_of(name)
    fault = state_fault(settings, optimizer, state_of(other)[2])
    assert (fault is None) == (name == other)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda state: state["state"][0].clear(), "other names or shapes"),
        (lambda state: state["state"][0].popitem(), "other names or shapes"),
        (lambda state: state["state"][0].update(more=torch.zeros(1)), "other names or shapes"),
        (lambda state: state["state"][0].update(dict.fromkeys(state["state"][0], 1)), "other names or shapes"),
        (lambda state: state["state"].update({2: state["state"][0]}), "no parameter"),
        (lambda state: state["state"].update({0: 3}), "no parameter"),
        (lambda state: state["param_groups"][0]["params"].pop(), "other groups"),
        (lambda state: state["param_groups"][0].pop("lr"), "other groups"),
        (lambda state: state["param_groups"].clear(), "other groups"),
        (lambda state: state.pop("state"), "other groups"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", FORMULAS)
def test_damage_is_named(name, damage, fault):
    settings, optimizer, state = state_of(name)
    damage(state)
    assert fault in (state_fault(settings, optimizer, state) or "nothing")


@pytest.mark.parametrize("state", [None, 3, [], {}, {"state": {}}, {"param_groups": []}])
def test_what_is_no_state_is_named(state):
    settings, optimizer, _ = state_of("adamw")
    assert state_fault(settings, optimizer, state)
