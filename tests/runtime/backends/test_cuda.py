"""Calls of the CUDA runtime, on FakeCuda: what they give, and which error is which."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.runtime.backends.cuda import CaptureError, Cuda, Gpu
from glimmer_export.runtime.contract import BackendError, DeviceLostError, DeviceMemoryError
from tests.runtime.backends.fake_cuda import FakeCuda


@pytest.fixture
def fake(monkeypatch):
    return FakeCuda(total_bytes=10_000).install(monkeypatch)


def test_what_gpu_it_is(fake, monkeypatch):
    assert Cuda().gpu == Gpu("Fake T4", "7.5", False)
    FakeCuda(name="Orin", capability=(8, 7), integrated=True).install(monkeypatch)
    assert Cuda().gpu == Gpu("Orin", "8.7", True)


def test_a_round_trip_through_the_gpu(fake):
    cuda = Cuda()
    pinned, stream, event = cuda.host_alloc(400), cuda.stream(), cuda.event()
    addresses = [cuda.malloc(400) for _ in range(2)]
    values = np.arange(100, dtype=np.int32)
    pinned.host[:] = values.view(np.uint8)
    cuda.copy(addresses[0], pinned.address, 400, stream)
    cuda.copy(addresses[1], addresses[0], 400, stream)
    cuda.clear(addresses[1], 40, stream)
    cuda.record(event, stream)
    assert not cuda.reached(event)
    cuda.synchronize_event(event)
    assert cuda.reached(event)
    cuda.copy(pinned.address, addresses[1], 400, stream)
    cuda.synchronize(stream)
    assert pinned.host.view(np.int32).tolist() == [0] * 10 + values[10:].tolist()
    assert cuda.memory_info() == (9_200, 10_000)
    for address in addresses:
        cuda.free(address)
    cuda.host_free(pinned)
    cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    fake.check_clean()


def test_a_capture_is_launched(fake):
    cuda = Cuda()
    stream, address = cuda.stream(), cuda.malloc(8)
    executable = cuda.capture(stream, lambda: cuda.clear(address, 8, stream))
    cuda.synchronize(stream)
    assert fake.kernels == []
    cuda.launch(executable, stream)
    cuda.synchronize(stream)
    assert fake.kernels == ["clear"]
    cuda.destroy_executable(executable)
    cuda.free(address)
    cuda.destroy_stream(stream)
    fake.check_clean()


def test_a_capture_that_breaks_off_leaves_the_stream_as_it_was(fake):
    cuda = Cuda()
    stream = cuda.stream()

    def broken() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        cuda.capture(stream, broken)
    cuda.synchronize(stream)
    for function in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"):
        fake.fail(function, "cudaErrorStreamCaptureUnsupported")
        with pytest.raises(CaptureError, match=function):
            cuda.capture(stream, lambda: None)
        cuda.synchronize(stream)
    cuda.destroy_stream(stream)
    fake.check_clean()


def test_too_little_memory_says_how_much(fake):
    cuda = Cuda()
    address = cuda.malloc(2_000)
    with pytest.raises(DeviceMemoryError, match=r"cudaMalloc on Fake T4: expected 9,000 bytes, found 8,000 .* 10,000"):
        cuda.malloc(9_000)
    fake.fail("cudaHostAlloc", "cudaErrorMemoryAllocation")
    with pytest.raises(DeviceMemoryError, match=r"500 bytes of page-locked memory of the host"):
        cuda.host_alloc(500)
    cuda.free(address)


def test_a_lost_gpu_stays_lost_and_is_asked_nothing_more(fake):
    cuda = Cuda()
    fake.lose()
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=r"GPU Fake T4.*cudaErrorIllegalAddress"):
            cuda.malloc(8)
    assert cuda.lost == "cudaErrorIllegalAddress"
    assert fake.calls["cudaMalloc"] == 1


def test_any_other_error_is_named(fake):
    cuda = Cuda()
    fake.fail("cudaMalloc", "cudaErrorInvalidValue")
    with pytest.raises(BackendError, match=r"cudaMalloc: expected success, found cudaErrorInvalidValue") as error:
        cuda.malloc(8)
    assert type(error.value) is BackendError
    cuda.free(cuda.malloc(8))
    fake.check_clean()


def test_a_crash_of_a_kernel_is_seen_though_no_call_of_ours_failed(fake):
    cuda = Cuda()
    stream = cuda.stream()
    cuda.check(stream)
    fake.crashed = fake.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(DeviceLostError, match=r"GPU Fake T4.*cudaErrorIllegalAddress"):
        cuda.check(stream)


def test_work_that_is_not_done_is_no_crash(fake):
    cuda = Cuda()
    stream, address = cuda.stream(), cuda.malloc(8)
    cuda.clear(address, 8, stream)
    cuda.check(stream)
    assert fake.kernels == []
    cuda.synchronize(stream)
    cuda.free(address)
    cuda.destroy_stream(stream)
    fake.check_clean()


def test_an_error_that_was_seen_is_not_left_for_others(fake):
    """TensorRT asks for the last error too."""
    cuda = Cuda()
    stream, event, address = cuda.stream(), cuda.event(), cuda.malloc(8)
    cuda.clear(address, 8, stream)
    cuda.record(event, stream)
    assert not cuda.reached(event)
    assert not fake.last_error
    with pytest.raises(DeviceMemoryError):
        cuda.malloc(20_000)
    assert not fake.last_error

    def broken() -> None:
        fake.last_error = fake.cudaError_t.cudaErrorStreamCaptureUnsupported
        raise KeyError("ours")

    with pytest.raises(KeyError):
        cuda.capture(stream, broken)
    assert not fake.last_error


def test_a_crash_during_a_capture_is_told_afterwards(fake):
    cuda = Cuda()
    stream = cuda.stream()

    def crashes() -> None:
        fake.crashed = fake.cudaError_t.cudaErrorIllegalAddress
        cuda.check(stream)
        raise BackendError("engine", expected="to be queued", found="refused", fix="build again")

    with pytest.raises(DeviceLostError, match="cudaErrorIllegalAddress"):
        cuda.capture(stream, crashes)
    assert not fake.faults


def test_cuda_python_that_raises_where_there_is_no_driver(fake):
    """As 12.6 does."""
    fake.driver = False
    with pytest.raises(BackendError, match=r"an NVIDIA GPU and its driver, found Failed to dlopen libcuda\.so\.1"):
        Cuda()


def test_a_function_that_the_driver_lacks_is_named(fake, monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(fake, "driver", False)
    with pytest.raises(BackendError, match=r"cudaMalloc: expected a driver that has it, found Failed"):
        cuda.malloc(8)
