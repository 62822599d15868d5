"""The processes that train one model together: this one alone, or all that Accelerate started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import nn

from glimmer_export.runtime.contract import OptionError, TrainingError

__all__ = ["Processes", "others_missed", "started_processes"]


GONE = ("gloo", "Connection closed by peer", "Connection reset by peer")
"""What gloo's errors say, which are of no kind of their own."""


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

    def all(self, value: int) -> list[int]:
        """A number of each process."""
        return [value]

    def wait(self) -> None:
        """Until all processes are here."""


class AcceleratedProcesses(Processes):
    """Those of `torchrun` or `accelerate launch`: each has a replica of the model (DistributedDataParallel)."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=cpu)
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

    def all(self, value: int) -> list[int]:
        """By rank."""
        found: list[int] = self._accelerator.gather(torch.tensor([value], device=self.device)).tolist()
        return found

    def wait(self) -> None:
        """A barrier."""
        self._accelerator.wait_for_everyone()


@contextmanager
def others_missed(processes: Processes) -> Iterator[None]:
    """Raise TrainingError if another process has ended: what it said is the error, not what this one meets."""
    try:
        yield
    except RuntimeError as error:
        ended = isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in GONE)
        if processes.size == 1 or not ended:
            raise
        raise TrainingError(
            f"process {processes.rank} of {processes.size}", expected="the others to go on", found="one that has ended",
            fix="see to what that one says, and start all of them again",
        ) from None


def started_processes(device: str | None) -> Processes:
    """Those that were started together, by the environment that launchers set.

    `device` is one that torch knows, by default a GPU if there is one; of several processes each has its own GPU,
    unless it is the CPU. Raises OptionError for a device that cannot be had, and ModuleNotFoundError if there are
    several processes and Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(_device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if device not in (None, "cpu", "cuda"):
        raise OptionError(
            "option --device", expected="cpu or cuda, as each of several processes has a device of its own",
            found=device, fix="leave it out",
        )
    return AcceleratedProcesses(cpu=device == "cpu" or (device is None and not torch.cuda.is_available()))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:  # each kind of device has its own
        raise OptionError(
            "option --device", expected="a device that torch has here", found=f"{name}: {str(error).splitlines()[0]}",
            fix="pass cpu, or leave it out",
        ) from None
    return device
