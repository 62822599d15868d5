"""What is said where Ray ends badly; no Ray is started."""

from __future__ import annotations

import io
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.encode import plan_build
from glimmer_export.exporter.memory.runners import RayRunner, ShardJob
from glimmer_export.exporter.memory.runners.ray_driver import _connect
from glimmer_export.exporter.memory.runners.ray_runner import failed
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BackendError, StoreError

pytest.importorskip("ray")


@pytest.mark.parametrize(("status", "told", "error"), [
    (1, True, StoreError), (-9, True, StoreError), (-9, False, BackendError), (1, False, RuntimeError),
])
def test_a_workers_error_comes_before_that_of_the_driver(bundle, corpus, tmp_path, monkeypatch, status, told, error):
    line = failed(StoreError("passage 7", expected="memory that is finite", found="NaN", fix="none"))
    driver = SimpleNamespace(
        stdin=io.BytesIO(), stdout=io.BytesIO(line.encode() if told else b""), wait=lambda: status,
    )

    @contextmanager
    def started(*_):
        yield driver

    monkeypatch.setattr(RayRunner, "_driver", started)
    opened, scanned = Bundle.open(bundle), Corpus.scan(corpus, part_size=16)
    plan = plan_build(
        opened, scanned, codec="fp16", passages_per_shard=16, batch_tokens=60, index_engine="fts5"
    )
    with work_directory(tmp_path / "store") as work:
        work.begin(plan, restart=False)
        with pytest.raises(error):
            list(RayRunner().run(ShardJob(work, plan, opened, scanned, 1), [0], advance=lambda _: None))


def test_an_error_of_ray_without_words_has_its_name():
    def init(**_):
        raise ConnectionError

    with pytest.raises(BackendError, match="found ConnectionError"):
        _connect(SimpleNamespace(init=init), "auto")
