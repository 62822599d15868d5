"""The processes that train one model together: this one alone, or all that Accelerate started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

__all__ = ["Processes", "started_processes"]


class Processes:
    """One process: it has every row, and its gradients are whole."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose `forward` and `backward` give gradients that all processes share, as their mean."""
        return module

    def without_sync(self, module: nn.Module) -> AbstractContextManager[Any]:  # noqa: ARG002 - nothing to hold back
        """Where gradients of a wrapped module are only added up, until a backward outside."""
        return nullcontext()

    def sums(self, values: Sequence[float]) -> list[float]:
        """Numbers, added up over all processes."""
        return list(values)

    def wait(self) -> None:
        """Until all processes are here."""


class AcceleratedProcesses(Processes):
    """Those of `accelerate launch` or `torchrun`: each has a replica of the model (DistributedDataParallel)."""

    def __init__(self) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        super().__init__(self._accelerator.device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Replicated; the first process's weights become everyone's."""
        wrapped: nn.Module = self._accelerator.prepare(module)
        return wrapped

    def without_sync(self, module: nn.Module) -> AbstractContextManager[Any]:
        """DistributedDataParallel's `no_sync`."""
        held: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return held

    def sums(self, values: Sequence[float]) -> list[float]:
        """In double precision; on a GPU these are a few numbers a step."""
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        summed: list[float] = self._accelerator.reduce(numbers, reduction="sum").tolist()
        return summed

    def wait(self) -> None:
        """A barrier."""
        self._accelerator.wait_for_everyone()


def started_processes(device: str | None) -> Processes:
    """Those that were started together, by the environment that launchers set.

    `device` is one that torch knows, by default a GPU if there is one; of several processes each has its own. Raises
    ModuleNotFoundError if there are several and Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return AcceleratedProcesses()
    return Processes(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
