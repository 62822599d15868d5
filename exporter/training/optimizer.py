"""The optimizers of a recipe, and the form of the state that each keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from glimmer_export.exporter.training.recipe import OptimizerSettings

__all__ = ["optimizer_from_settings", "state_fault"]

KEPT = {
    "adafactor": {"step", "row_var", "col_var", "variance"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "sgd": {"momentum_buffer"},
}
"""What is kept of each parameter."""


def optimizer_from_settings(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer; its learning rate is set before each step."""
    decay = settings.weight_decay
    match settings.name:
        case "adafactor":
            return torch.optim.Adafactor(parameters, lr=0.0, weight_decay=decay)
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
        shape = parameters[index].shape
        if not set(kept) <= KEPT[settings.name] or not all(_is_of(value, shape) for value in kept.values()):
            return "other names or shapes in its optimizer"
    return None


def _is_of(value: object, shape: torch.Size) -> bool:
    """Whether this may be kept of a parameter: nothing, a number, or a tensor of its sizes, some of them summed up."""
    if not isinstance(value, Tensor):
        return value is None
    sizes = zip(value.shape, shape, strict=False)
    return not value.ndim or (value.ndim == len(shape) and all(size in (1, of) for size, of in sizes))


def _form(value: object) -> Any:
    """What is left of nested data without its values: keys, lengths and types."""
    if isinstance(value, dict):
        return {key: _form(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(each) for each in value]
    return type(value)
