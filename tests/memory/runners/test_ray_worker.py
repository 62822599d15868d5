"""A worker, called as Ray Data calls it, in this process: its shards, and its errors as they come back."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.encode import plan_build
from glimmer_export.exporter.memory.runners.ray_driver import MAX_ATTEMPTS, ShardActor
from glimmer_export.exporter.memory.runners.ray_runner import (
    SharedJob,
    attempts_directory,
    is_failure,
    library_versions,
    read_outcome,
)
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    BackendError,
    BundleError,
    CorpusError,
    OutputError,
    StoreError,
)
from tests.bundle_factory import NOT_FINITE, make_bundle, tree, write_corpus, write_rows

SHARD = 16
SETTINGS = {"passages_per_shard": SHARD, "batch_tokens": 60}


@pytest.fixture
def shared(bundle, corpus, tmp_path):
    """What a worker is sent, with the directory ready as RayRunner leaves it."""

    def prepare(corpus=corpus) -> SharedJob:
        opened, scanned = Bundle.open(bundle), Corpus.scan(corpus, part_size=SHARD)
        plan = plan_build(opened, scanned, codec="fp16", **SETTINGS, index_engine="fts5")
        with work_directory(tmp_path / "store") as work:
            work.begin(plan, restart=False)
        attempts_directory(work).mkdir(parents=True)
        return SharedJob(work, plan, bundle, opened.manifest, scanned, 1, library_versions())

    return prepare


def outcome(actor: ShardActor, index: int):
    [line] = actor({"index": [index]})["outcome"]
    return read_outcome(line)


def test_shards_in_any_order_are_those_of_a_build_in_one_process(shared, bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "local", **SETTINGS)
    job = shared()
    actor, records = ShardActor(job), {}
    for index in (3, 0, 2, 1, 2):  # Ray gives a shard again where it lost the record
        number, records[index] = outcome(actor, index)
        assert number == index
    assert tree(job.work.store / "shards") == tree(tmp_path / "local" / "shards")
    for index, record in records.items():
        job.work.record(index, record)
    assert job.work.done(job.plan) == records
    assert not list(attempts_directory(job.work).iterdir())


def test_a_codec_is_read_and_not_fitted_again(tmp_path, corpus):
    bundle = make_bundle(tmp_path / "bundle", codecs=("fp16", "int8"))
    build_store(bundle, corpus, tmp_path / "local", codec="int8", **SETTINGS)
    opened, scanned = Bundle.open(bundle), Corpus.scan(corpus, part_size=SHARD)
    plan = plan_build(opened, scanned, codec="int8", **SETTINGS, index_engine="fts5")
    with work_directory(tmp_path / "store") as work:
        work.begin(plan, restart=False)
        shutil.copy(tmp_path / "local" / CODEC_ARRAYS, work.store)
    attempts_directory(work).mkdir(parents=True)
    actor = ShardActor(SharedJob(work, plan, bundle, opened.manifest, scanned, 1, library_versions()))
    for index in range(plan.num_shards):
        outcome(actor, index)
    assert tree(work.store / "shards") == tree(tmp_path / "local" / "shards")
    (work.store / CODEC_ARRAYS).unlink()
    with pytest.raises(StoreError):
        outcome(ShardActor(actor._job), 0)
    assert not (work.store / CODEC_ARRAYS).exists()


def test_the_plan_is_resumed_by_a_build_in_one_process(shared, bundle, corpus, tmp_path):
    job = shared()
    job.work.record(*outcome(ShardActor(job), 2))
    assert build_store(bundle, corpus, tmp_path / "store", **SETTINGS).resumed_shards == 1
    build_store(bundle, corpus, tmp_path / "local", **SETTINGS)
    assert tree(tmp_path / "store") == tree(tmp_path / "local")
    assert not job.work.directory.exists()


def test_memory_that_is_not_finite(shared, tmp_path):
    rows = [{"id": "good", "text": "w1"}, {"id": "bad", "text": NOT_FINITE}]
    with pytest.raises(StoreError, match="passage 'bad': expected memory that is finite"):
        outcome(ShardActor(shared(write_rows(tmp_path / "bad.jsonl", rows))), 0)


def test_a_corpus_that_was_changed(shared, corpus):
    actor = ShardActor(shared())
    assert outcome(actor, 1)[0] == 1
    corpus.write_bytes(corpus.read_bytes().replace(b"w1", b"w2", 1))
    with pytest.raises(CorpusError, match="its content when the build began"):
        outcome(actor, 0)
    corpus.unlink()
    with pytest.raises(CorpusError, match="build began, found none"):
        outcome(actor, 0)


def test_a_full_disk(shared, monkeypatch):
    def pwrite(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    job = shared()
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OutputError, match="a full disk"):
        outcome(ShardActor(job), 0)
    assert not list(job.work.directory.rglob("*.tmp"))


def test_a_bundle_that_is_another_there(shared, tmp_path):
    job, other = shared(), make_bundle(tmp_path / "other", checkpoint="b")
    with pytest.raises(BundleError, match="the bundle with which the build was started"):
        outcome(ShardActor(replace(job, bundle=other)), 0)
    with pytest.raises(BundleError, match="expected a bundle, found nothing of that name"):
        outcome(ShardActor(replace(job, bundle=tmp_path / "nowhere")), 0)


def test_a_directory_that_is_not_shared(shared, tmp_path):
    job = shared()
    job.work.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"expected storage that machine .* shares, found none there"):
        outcome(ShardActor(job), 0)
    assert not job.work.directory.exists()


def test_other_libraries(shared):
    job = shared()
    with pytest.raises(BackendError, match=r"expected onnxruntime 1\.0\.0, numpy .* found onnxruntime "):
        outcome(ShardActor(replace(job, versions=job.versions | {"onnxruntime": "1.0.0"})), 0)


def test_a_shard_over_which_workers_die_is_given_up(shared):
    job = shared()
    (attempts_directory(job.work) / "00001").write_bytes(b"." * (MAX_ATTEMPTS - 1))
    (attempts_directory(job.work) / "00002").write_bytes(b"." * MAX_ATTEMPTS)
    actor = ShardActor(job)
    assert outcome(actor, 1)[0] == 1
    with pytest.raises(BackendError, match=r"shard 2: .* found 4 workers that died over it; .* --batch-tokens"):
        outcome(actor, 2)


def test_one_error_does_not_end_a_worker(shared, tmp_path):
    corpus = tmp_path / "mixed.jsonl"
    rows = write_corpus(corpus, 40)
    write_rows(corpus, [*rows, {"id": "bad", "text": NOT_FINITE}])
    actor = ShardActor(shared(corpus))
    lines = actor({"index": [2, 0]})["outcome"]
    assert [is_failure(line) for line in lines] == [True, False]
