"""FakeCuda fails on what it says it fails on: each kind of bug, made on purpose."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from tests.runtime.backends.fake_cuda import CudaMisuseError, FakeCuda

SIZE = 1024
DEFAULT = FakeCuda.cudaMemcpyKind.cudaMemcpyDefault


class Bench:
    """A FakeCuda with two streams, two events, memory of the GPU and page-locked memory that holds 1, 2, 3..."""

    def __init__(self, **traits) -> None:
        self.cuda = FakeCuda(**traits)
        self.first, self.second = (self.get("cudaStreamCreateWithFlags", 1) for _ in range(2))
        self.event, self.other_event = (self.get("cudaEventCreateWithFlags", 2) for _ in range(2))
        self.a, self.b = (self.get("cudaMalloc", SIZE) for _ in range(2))
        self.host = self.get("cudaHostAlloc", SIZE, 2)
        self.pinned = self.get("cudaHostGetDevicePointer", self.host, 0)
        self.view = np.ctypeslib.as_array((ctypes.c_uint8 * SIZE).from_address(self.host))
        self.view[:] = self.numbers = np.arange(SIZE) % 251

    def get(self, function: str, *arguments):
        error, *values = getattr(self.cuda, function)(*arguments)
        assert error == 0, error
        return values[0] if values else None

    def copy(self, target: int, source: int, stream: int) -> None:
        self.get("cudaMemcpyAsync", target, source, SIZE, DEFAULT, stream)

    def work(self, stream: int, reads: list[int], writes: list[int]) -> None:
        self.cuda.enqueue(stream, "work", [(at, SIZE) for at in reads], [(at, SIZE) for at in writes], lambda: None)

    def close(self) -> None:
        for stream in (self.first, self.second):
            self.get("cudaStreamSynchronize", stream)
        for address in (self.a, self.b):
            self.get("cudaFree", address)
        self.get("cudaFreeHost", self.host)
        for stream in (self.first, self.second):
            self.get("cudaStreamDestroy", stream)
        for event in (self.event, self.other_event):
            self.get("cudaEventDestroy", event)


@pytest.mark.parametrize("order", [None, *range(20)])
def test_right_work_passes_whatever_the_order(order):
    bench = Bench(order=order)
    bench.copy(bench.a, bench.pinned, bench.second)
    bench.get("cudaEventRecord", bench.event, bench.second)
    bench.get("cudaStreamWaitEvent", bench.first, bench.event, 0)
    bench.copy(bench.b, bench.a, bench.first)
    bench.get("cudaStreamSynchronize", bench.first)
    bench.view[:] = 0
    bench.copy(bench.pinned, bench.b, bench.first)
    bench.get("cudaEventRecord", bench.event, bench.first)
    bench.get("cudaEventSynchronize", bench.event)
    assert (bench.view == bench.numbers).all()
    bench.close()
    bench.cuda.check_clean()


def test_use_after_free():
    bench = Bench()
    bench.get("cudaFree", bench.a)
    with pytest.raises(CudaMisuseError, match="use after free"):
        bench.copy(bench.a, bench.pinned, bench.first)
    with pytest.raises(CudaMisuseError, match="use after free"):
        bench.cuda.check_clean()


def test_double_free():
    bench = Bench()
    bench.get("cudaFree", bench.a)
    with pytest.raises(CudaMisuseError, match="double free"):
        bench.get("cudaFree", bench.a)


def test_freeing_what_was_never_given():
    bench = Bench()
    for address in (12345, bench.pinned, bench.a + 8):
        with pytest.raises(CudaMisuseError, match="did not give"):
            bench.get("cudaFree", address)


@pytest.mark.parametrize("waits", [False, True])
def test_freeing_what_queued_work_uses(waits):
    bench = Bench()
    bench.copy(bench.a, bench.pinned, bench.first)
    if waits:
        bench.get("cudaStreamSynchronize", bench.first)
        bench.get("cudaFree", bench.a)
    else:
        with pytest.raises(CudaMisuseError, match="freed while queued copy uses it"):
            bench.get("cudaFree", bench.a)


def test_a_read_before_the_copys_event():
    """The event is recorded, but the reader does not wait for it."""
    bench = Bench()
    bench.copy(bench.a, bench.pinned, bench.second)
    bench.get("cudaEventRecord", bench.event, bench.second)
    with pytest.raises(CudaMisuseError, match="missing wait"):
        bench.work(bench.first, [bench.a], [])


def test_an_event_recorded_too_early():
    bench = Bench()
    bench.get("cudaEventRecord", bench.event, bench.second)
    bench.copy(bench.a, bench.pinned, bench.second)
    bench.get("cudaStreamWaitEvent", bench.first, bench.event, 0)
    with pytest.raises(CudaMisuseError, match="missing wait"):
        bench.work(bench.first, [bench.a], [])


def test_writing_what_another_stream_still_reads():
    bench = Bench()
    bench.work(bench.first, [bench.a], [bench.b])
    with pytest.raises(CudaMisuseError, match=r"which queued work of stream \d reads"):
        bench.copy(bench.a, bench.pinned, bench.second)


def test_two_streams_may_read_at_once():
    bench = Bench()
    for stream in (bench.first, bench.second):
        bench.work(stream, [bench.a], [])
    bench.close()
    bench.cuda.check_clean()


def test_the_host_writes_what_a_queued_copy_reads():
    bench = Bench()
    bench.copy(bench.a, bench.pinned, bench.first)
    bench.view[3] += 1
    with pytest.raises(CudaMisuseError, match="the host wrote"):
        bench.get("cudaStreamSynchronize", bench.first)


def test_the_host_sees_nothing_of_a_copy_it_does_not_wait_for():
    bench = Bench()
    bench.copy(bench.a, bench.pinned, bench.first)
    bench.get("cudaStreamSynchronize", bench.first)
    bench.copy(bench.pinned, bench.a, bench.first)
    assert not (bench.view == bench.numbers).any()
    bench.get("cudaStreamSynchronize", bench.first)
    assert (bench.view == bench.numbers).all()


def test_memory_nobody_wrote_is_not_a_number():
    bench = Bench()
    assert np.isnan(bench.cuda.bytes_at(bench.a, SIZE).view(np.float16)).all()
    assert np.isnan(bench.cuda.bytes_at(bench.a, SIZE).view(np.float32)).all()


@pytest.mark.parametrize(("offset", "size"), [(0, SIZE + 1), (1, SIZE), (SIZE, 1), (-1, 2)])
def test_memory_out_of_bounds(offset, size):
    bench = Bench()
    with pytest.raises(CudaMisuseError, match="not all of one allocation"):
        bench.get("cudaMemsetAsync", bench.a + offset, 0, size, bench.first)


def test_the_default_stream():
    with pytest.raises(CudaMisuseError, match="default stream"):
        Bench().work(0, [], [])


def captured(bench: Bench) -> int:
    bench.get("cudaStreamBeginCapture", bench.first, 1)
    bench.work(bench.first, [bench.a], [bench.b])
    graph = bench.get("cudaStreamEndCapture", bench.first)
    executable = bench.get("cudaGraphInstantiate", graph, 0)
    bench.get("cudaGraphDestroy", graph)
    return executable


def test_a_captured_graph_runs_when_it_is_launched():
    bench = Bench()
    executable = captured(bench)
    assert bench.cuda.kernels == []
    for _ in range(2):
        bench.get("cudaGraphLaunch", executable, bench.first)
    bench.get("cudaStreamSynchronize", bench.first)
    assert bench.cuda.kernels == ["work", "work"]
    bench.get("cudaGraphExecDestroy", executable)
    bench.close()
    bench.cuda.check_clean()


def test_a_captured_graph_uses_freed_memory():
    bench = Bench()
    executable = captured(bench)
    bench.get("cudaFree", bench.a)
    with pytest.raises(CudaMisuseError, match="use after free"):
        bench.get("cudaGraphLaunch", executable, bench.first)


def test_a_captured_graph_waits_for_nothing_that_was_not_captured():
    bench = Bench()
    executable = captured(bench)
    bench.copy(bench.a, bench.pinned, bench.second)
    with pytest.raises(CudaMisuseError, match="missing wait"):
        bench.get("cudaGraphLaunch", executable, bench.first)


def test_a_queued_graph_is_destroyed():
    bench = Bench()
    executable = captured(bench)
    bench.get("cudaGraphLaunch", executable, bench.first)
    with pytest.raises(CudaMisuseError, match="destroyed while it is queued"):
        bench.get("cudaGraphExecDestroy", executable)


@pytest.mark.parametrize(
    ("function", "arguments"), [("cudaMalloc", (8,)), ("cudaHostAlloc", (8, 2)), ("cudaStreamSynchronize", ("first",))]
)
def test_calls_that_a_capture_forbids(function, arguments):
    bench = Bench()
    bench.get("cudaStreamBeginCapture", bench.first, 1)
    with pytest.raises(CudaMisuseError, match="during a capture"):
        bench.get(function, *(getattr(bench, item) if isinstance(item, str) else item for item in arguments))


def test_another_threads_work_is_captured():
    bench = Bench()
    bench.get("cudaStreamBeginCapture", bench.first, 1)

    def work() -> None:
        with pytest.raises(CudaMisuseError, match="another thread"):
            bench.work(bench.first, [], [])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(bench.cuda.faults) == 1


@pytest.mark.parametrize("forgotten", ["cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaEventDestroy"])
def test_what_is_not_given_back(forgotten, monkeypatch):
    bench = Bench()
    monkeypatch.setattr(bench.cuda, forgotten, lambda handle: (bench.cuda.cudaError_t.cudaSuccess,))
    bench.close()
    with pytest.raises(CudaMisuseError, match="not given back"):
        bench.cuda.check_clean()


def test_handles_that_are_none():
    bench = Bench()
    bench.get("cudaEventDestroy", bench.event)
    with pytest.raises(CudaMisuseError, match="no Event"):
        bench.get("cudaEventRecord", bench.event, bench.first)
    with pytest.raises(CudaMisuseError, match="no Stream"):
        bench.get("cudaStreamSynchronize", bench.other_event)


def test_memory_ends():
    cuda = FakeCuda(total_bytes=100)
    assert cuda.cudaMalloc(60)[0] == 0
    assert cuda.cudaMalloc(60)[0].name == "cudaErrorMemoryAllocation"
    assert cuda.cudaMemGetInfo()[1:] == (40, 100)


def test_errors_come_as_scripted():
    cuda = FakeCuda()
    cuda.fail("cudaMalloc", "cudaErrorInvalidValue", after=1)
    assert [cuda.cudaMalloc(8)[0].name for _ in range(3)] == ["cudaSuccess", "cudaErrorInvalidValue", "cudaSuccess"]
    cuda.lose()
    assert cuda.cudaMalloc(8)[0].name == cuda.cudaMemGetInfo()[0].name == "cudaErrorIllegalAddress"
