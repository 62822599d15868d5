"""The optimizers of a recipe, and the form of the state that each keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from glimmer_export.exporter.training.recipe import OptimizerSettings

__all__ = ["optimizer_from_settings", "state_fault"]

T5X_EPSILONS = (1e-15, 1e-3)
"""T5X adds 1e-30 to squared gradients, and torch bounds second moments by the square of its first epsilon.

It also bounds the mean of a matrix's row moments by that epsilon itself. Its default, 1e-7, is more than those of a
large model have, whose gradients of a norm of 1 are shared by 1e9 weights: all steps would have the full size.
"""


def optimizer_from_settings(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer; its learning rate is set before each step."""
    decay = settings.weight_decay
    match settings.name:
        case "adafactor":
            return torch.optim.Adafactor(parameters, lr=0.0, eps=T5X_EPSILONS, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=0.0, weight_decay=decay, fused=True)
        case _:
            return torch.optim.SGD(parameters, lr=0.0, weight_decay=decay)


def state_fault(settings: OptimizerSettings, optimizer: torch.optim.Optimizer, state: object) -> str | None:
    """What is wrong with a state for this optimizer, which torch would take in unseen and fail on later."""
    groups, moments = (state.get(name) for name in ("param_groups", "state")) if isinstance(state, dict) else (0, 0)
    if _form(groups) != _form(optimizer.state_dict()["param_groups"]) or not isinstance(moments, dict):
        return "other groups of parameters in its optimizer"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, kept in moments.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters) or not isinstance(kept, dict):
            return "moments of no parameter in its optimizer"
        if {name: _shape(value) for name, value in kept.items()} != _kept(settings.name, parameters[index].shape):
            return "other names or shapes in its optimizer"
    return None


def _kept(name: str, shape: torch.Size) -> dict[str, tuple[int, ...] | None]:
    """What an optimizer keeps of a parameter, and the shape of each; None is nothing."""
    match name:
        case "adafactor" if len(shape) > 1:
            return {"step": (), "row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}
        case "adafactor":
            return {"step": (), "variance": tuple(shape)}
        case "adamw":
            return {"step": (), "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}
        case _:
            return {"momentum_buffer": None}


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, Tensor) else value


def _form(value: object) -> Any:
    """What is left of nested data without its values: keys, lengths and types."""
    if isinstance(value, dict):
        return {key: _form(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(each) for each in value]
    return type(value)
