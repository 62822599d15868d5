"""Which runs are captured, launched and forgotten."""

from __future__ import annotations

import pytest

from runtime.backends.cuda import Cuda
from runtime.backends.tensorrt.cuda_graphs import CudaGraphs
from runtime.backends.tensorrt.device import CudaDevice
from tests.runtime.backends.fake_cuda import FakeCuda


@pytest.fixture(params=[None, 0, 1])
def bench(request, monkeypatch):
    return Bench(FakeCuda(order=request.param).install(monkeypatch))


class Bench:
    """A device, and runs that are work of no consequence on it."""

    def __init__(self, fake: FakeCuda) -> None:
        self.fake, self.device = fake, CudaDevice(Cuda())
        self.graphs = CudaGraphs(self.device, lambda: self, limit=2)

    def bind(self, shapes) -> None:
        self.shapes = shapes

    def queue(self, addresses) -> None:
        self.fake.enqueue(self.device.stream, f"run {addresses[0]}", [], [], lambda: None)

    def run(self, number: int) -> None:
        self.graphs.run((((1, number),), (number,)), lambda: self.queue((number,)))

    def close(self) -> None:
        self.device.synchronize()
        self.graphs.close()
        self.device.close()
        self.fake.check_clean()


def test_each_run_runs_once_however_it_is_queued(bench):
    runs = [1, 2, 1, 2, 1, 2, 1, 3, 3, 3, 2, 2, 1, 1, 1, 1]
    for number in runs:
        bench.run(number)
    bench.close()
    assert bench.fake.kernels == [f"run {number}" for number in runs]
    assert bench.fake.calls["cudaGraphLaunch"] > 0


def test_the_second_time_captures_and_the_third_launches(bench):
    counts = []
    for _ in range(4):
        bench.run(1)
        counts.append((bench.fake.calls["cudaGraphInstantiate"], bench.fake.calls["cudaGraphLaunch"]))
    assert counts == [(0, 0), (1, 0), (1, 1), (1, 2)]
    bench.close()


def test_what_is_forgotten_is_waited_for(bench):
    for number in (1, 1, 1, 2, 3):
        bench.run(number)
    assert bench.fake.calls["cudaGraphExecDestroy"] == 1
    bench.close()


def test_what_runs_again_is_kept(bench):
    for number in (1, 1, 1, 2, 1, 3, 1):
        bench.run(number)
    assert (bench.fake.calls["cudaGraphInstantiate"], bench.fake.calls["cudaGraphLaunch"]) == (1, 3)
    bench.close()
