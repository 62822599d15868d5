"""A GPU's streams and memory by themselves, on FakeCuda: passages laid out as on the host, whatever the order."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.contract import BackendError
from glimmer_export.runtime.passage_memory import PassageMemory, padded_memory
from tests.runtime.backends.fake_cuda import FakeCuda

TOKENS, WIDTH = 9, 6


def rows(seed: int) -> list[list[PassageMemory]]:
    """Passages of 1 to 9 tokens, in rows of 3 and 1; keys of a store whose numbers differ with the seed."""
    random = np.random.default_rng(seed)
    return [
        [
            PassageMemory(
                {
                    "memory": random.standard_normal((int(random.integers(1, TOKENS + 1)), WIDTH)).astype(np.float16),
                    "memory_scale": np.float32(2.0 ** int(random.integers(-3, 4))),
                },
                ("store", 10 * seed + number),
            )
            for number in numbers
        ]
        for numbers in ((0, 1, 2), (3,))
    ]  # fmt: skip


@pytest.fixture(params=[None, 0, 1, 2])
def fake(request, monkeypatch):
    return FakeCuda(order=request.param).install(monkeypatch)


def assert_laid_out(tensors, passages) -> None:
    for name, expected in padded_memory(passages, TOKENS).items():
        found = tensors[name].fetch()()
        assert found.dtype == expected.dtype
        assert (found == expected).all()


@pytest.mark.parametrize("cache_bytes", [0, 600, 100_000])
def test_memory_is_laid_out_as_on_the_host(fake, cache_bytes):
    device = CudaDevice(Cuda(), cache_bytes)
    for seed in (1, 2, 1, 3, 2):
        assert_laid_out(device.memory(rows(seed), TOKENS), rows(seed))
    device.close()
    fake.check_clean()


def test_batches_that_are_queued_before_any_ran_do_not_share_page_locked_memory(fake):
    """As several threads queue them."""
    device = CudaDevice(Cuda())
    loaded = [(device.memory(rows(seed), TOKENS), rows(seed)) for seed in range(6)]
    for tensors, passages in loaded:
        assert_laid_out(tensors, passages)
    device.close()
    fake.check_clean()


def test_memory_is_not_written_anew_before_its_readers_are_done(fake):
    device = CudaDevice(Cuda())
    fetched = [(device.memory(rows(seed), TOKENS)["memory"].fetch(), rows(seed)) for seed in range(6)]
    assert fake.calls["cudaMalloc"] < 6
    for wait, passages in fetched:
        assert (wait() == padded_memory(passages, TOKENS)["memory"]).all()
    device.close()
    fake.check_clean()


def test_memory_that_is_let_go_before_it_arrived(fake):
    device = CudaDevice(Cuda())
    for seed in range(6):
        device.memory(rows(seed), TOKENS)
    assert_laid_out(device.memory(rows(7), TOKENS), rows(7))
    device.close()
    fake.check_clean()


def test_arrays_and_zeros(fake):
    device = CudaDevice(Cuda())
    fetched = []
    for number in range(4):
        arrays = {
            "a": np.arange(number, number + 7, dtype=np.int32),
            "b": np.linspace(-number, 5, 12, dtype=np.float32).reshape(3, 4),
        }
        with device.lock:
            placed = device.place(arrays)
        fetched += [(placed[name].fetch(), array) for name, array in arrays.items()]
        specs = {"c": ((2, 3), np.dtype(np.float32)), "d": ((5,), np.dtype(np.float16))}
        zeros = device.zeros(specs)
        fetched += [(zeros[name].fetch(), np.zeros(*spec)) for name, spec in specs.items()]
        assert device.place(placed) == placed
    for wait, expected in fetched:
        found = wait()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert (found == expected).all()
    device.close()
    with pytest.raises(BackendError, match="a closed one"):
        device.memory(rows(1), TOKENS)
    fake.check_clean()


def test_shared_memory_is_laid_out_once(monkeypatch):
    fake = FakeCuda(integrated=True).install(monkeypatch)
    device = CudaDevice(Cuda())
    for seed in (1, 2, 3):
        assert_laid_out(device.memory(rows(seed), TOKENS), rows(seed))
    assert fake.copied["in"] == 0
    device.close()
    fake.check_clean()


def test_closing_waits_for_what_is_queued(fake):
    device = CudaDevice(Cuda(), 100_000)
    tensors = [device.memory(rows(1), TOKENS), device.zeros({"c": ((2, 3), np.dtype(np.float32))})]
    device.close()
    del tensors
    fake.check_clean()
