"""Pools: addresses that repeat, sizes that are few, and memory that is not written before its readers are done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.buffers import ALIGNMENT, DevicePool, PinnedPool, _rounded
from glimmer_export.runtime.contract import DeviceMemoryError
from tests.runtime.backends.fake_cuda import CudaMisuseError, FakeCuda


@pytest.fixture
def fake(monkeypatch):
    return FakeCuda(total_bytes=100_000).install(monkeypatch)


@given(st.integers(1, 1 << 40))
def test_sizes_are_rounded_up_by_an_eighth_at_most(num_bytes):
    size = _rounded(num_bytes)
    assert size >= num_bytes
    assert size % ALIGNMENT == 0
    assert size <= max(ALIGNMENT * -(-num_bytes // ALIGNMENT), num_bytes * 9 / 8)
    assert _rounded(size) == size


def test_a_loop_that_gives_back_what_it_took_gets_the_same_addresses(fake):
    pool = DevicePool(Cuda(), lambda: None, 0)
    before, rounds = [pool.take(1000) for _ in range(3)], []
    for _ in range(6):
        after = [pool.take(1000) for _ in range(3)]
        rounds.append([lease.address for lease in after])
        before = after
    del before, after
    assert rounds[0] != rounds[1]
    assert rounds[:2] * 2 == rounds[2:]
    pool.close()
    fake.check_clean()


def test_memory_that_another_stream_read_is_waited_for(fake):
    cuda = Cuda()
    copies, runs = cuda.stream(), cuda.stream()
    pool = DevicePool(cuda, lambda: None, copies)
    for _ in range(3):
        lease = pool.take(512)
        cuda.clear(lease.address, 512, copies)
        pool.record_ready(lease, copies)
        pool.wait_ready(lease, runs)
        fake.enqueue(runs, "run", [(lease.address, 512)], [], lambda: None)
        pool.record_used(lease, runs)
        del lease
    assert fake.calls["cudaMalloc"] == 1
    for stream in (copies, runs):
        cuda.synchronize(stream)
    pool.close()
    for stream in (copies, runs):
        cuda.destroy_stream(stream)
    fake.check_clean()


def test_page_locked_memory_is_not_written_while_a_copy_reads_it(fake):
    cuda = Cuda()
    stream, address = cuda.stream(), cuda.malloc(512)
    pool = PinnedPool(cuda, lambda: None)
    for number in range(3):
        lease = pool.take(512)
        lease.host[:512] = number
        cuda.copy(address, lease.address, 512, stream)
        pool.record_used(lease, stream)
        del lease
    assert fake.calls["cudaHostAlloc"] == 3
    cuda.synchronize(stream)
    assert pool.take(512).size == 512
    assert fake.calls["cudaHostAlloc"] == 3
    pool.close()
    cuda.free(address)
    cuda.destroy_stream(stream)
    fake.check_clean()


def test_page_locked_memory_without_its_event_would_be(fake):
    """What `record_used` is for."""
    cuda = Cuda()
    stream, address = cuda.stream(), cuda.malloc(512)
    pool = PinnedPool(cuda, lambda: None)
    lease = pool.take(512)
    lease.host[:] = 1
    cuda.copy(address, lease.address, 512, stream)
    del lease
    pool.take(512).host[:] = 2
    with pytest.raises(CudaMisuseError, match="the host wrote"):
        cuda.synchronize(stream)


def test_room_is_made_once_then_the_error_is_the_callers(fake):
    cuda, reclaimed = Cuda(), []
    pool = DevicePool(cuda, lambda: (reclaimed.append(1), pool.trim()), 0)
    kept = pool.take(60_000)
    with pytest.raises(DeviceMemoryError):
        pool.take(60_000)
    assert len(reclaimed) == 1
    del kept
    assert pool.take(40_000).size >= 40_000
    assert pool.take(70_000).size >= 70_000
    pool.close()
    fake.check_clean()
