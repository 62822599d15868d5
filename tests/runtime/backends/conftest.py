"""Bundles with engines for FakeTensorRT, and a FakeCuda in the place of CUDA that must be left clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.exported import Exported, copy_bundle
from tests.runtime.backends.fake_cuda import FakeCuda
from tests.runtime.backends.fake_tensorrt import FakeTensorRT, write_engines


@pytest.fixture(autouse=True)
def kernel_folder(monkeypatch, tmp_path) -> Path:
    """Where compiled kernels are kept: not in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def engined(exported, tmp_path_factory) -> Callable[..., Path]:
    """A variant's bundle with engines of a library for the default FakeCuda, or of the key given."""
    made: dict[object, Path] = {}

    def get(source: Exported, library: str = "tensorrt", **changes) -> Path:
        key = (source.directory, library, *changes.items())
        if key not in made:
            bundle = copy_bundle(source, tmp_path_factory.mktemp("engined") / "bundle")
            write_engines(bundle, FakeTensorRT(FakeCuda(), library, VERSIONS[library]).key, **changes)
            made[key] = bundle
        return made[key]

    return get


VERSIONS = {"tensorrt": "10.3.0", "tensorrt_rtx": "1.7.1.116"}


@pytest.fixture
def gpu(monkeypatch) -> Callable[..., FakeTensorRT]:
    """Puts a library and a GPU of these traits in place; whatever ran there must be clean at the end."""
    made: list[FakeCuda] = []

    def put(library: str = "tensorrt", version: str | None = None, **traits) -> FakeTensorRT:
        cuda = FakeCuda(**traits).install(monkeypatch)
        made.append(cuda)
        return FakeTensorRT(cuda, library, version or VERSIONS[library]).install(monkeypatch)

    yield put
    for cuda in made:
        if cuda.lost is None:
            cuda.check_clean()
        assert not cuda.faults
