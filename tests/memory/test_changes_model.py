"""Changes in any order against a dict, with readers of earlier generations held open."""

from __future__ import annotations

import random
from contextlib import ExitStack

import numpy as np
import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    commit,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    merge_policy,
    repair_store,
    roll_back,
    shard_lists,
    verify_store,
)
from glimmer_export.exporter.memory.runners import KeptRunner
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import read_shards, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.assert_close import assert_close
from tests.bundle_factory import make_bundle, write_rows
from tests.encoder_factory import make_encoder
from tests.memory.contents import contents, live_numbers, search_ids

QUESTIONS = ("w0 w1", "w2 t3", "w5 w6 w7 t1")
PER_SHARD = 6


class Model:
    """A store and what it should hold: id -> (number, title, text)."""

    def __init__(self, folder, bundle, engine, seed):
        self.folder, self.bundle, self.random = folder, bundle, random.Random(seed)
        self.opened, self.store = Bundle.open(bundle), folder / "store"
        self.runner = KeptRunner()
        rows = [self.row(identifier) for identifier in range(8)]
        build_store(
            bundle, write_rows(folder / "c.jsonl", rows), self.store, passages_per_shard=PER_SHARD, batch_tokens=60,
            index=engine,
        )
        self.encoder = make_encoder(folder / "encoder")
        index_store(self.store, encoder=self.encoder)
        entry = read_store_manifest(self.store).vectors.encoder
        self.sentences = self.runner.sentence_encoder(self.store, entry, None)
        self.vectors = {}
        self.kept = {row["id"]: (number, row["title"], row["text"]) for number, row in enumerate(rows)}
        self.next_number, self.next_id = len(rows), 100
        self.before = (dict(self.kept), self.next_number)
        self.has_damage = False

    def row(self, identifier):
        words = [f"w{self.random.randrange(12)}" for _ in range(self.random.randrange(1, 5))]
        return {"id": identifier, "title": f"t{identifier}", "text": " ".join(words)}

    def append(self):
        count = self.random.choice([1, 1, 2, 3, PER_SHARD + 2])
        replaced = self.random.sample(sorted(self.kept), min(len(self.kept), self.random.randrange(3)))
        rows = [self.row(identifier) for identifier in replaced]
        rows += [self.row(self.next_id + index) for index in range(count)]
        self.next_id += count
        self.random.shuffle(rows)
        append_passages(
            self.store, self.opened, write_rows(self.folder / "new.jsonl", rows), replace=True, batch_tokens=60,
            runner=self.runner,
        )
        for row in rows:
            self.kept[row["id"]] = self.next_number, row["title"], row["text"]
            self.next_number += 1

    def delete(self):
        for identifier in (gone := self.random.sample(sorted(self.kept), min(len(self.kept), 2))):
            del self.kept[identifier]
        if gone:
            delete_passages(self.store, gone)

    def compact(self):
        compact_store(self.store)

    def step(self):
        """One change, and whether there is a generation before that a roll back may lead to."""
        before = dict(self.kept), self.next_number
        kind = self.random.choices([self.append, self.delete, self.compact], [5, 3, 1])[0]
        kind()
        self.before = None if kind == self.compact else before

    def go_back(self):
        """The last change made undone, as after damage; numbers that it gave are given again."""
        manifest = read_store_manifest(self.store)
        path = self.store / manifest.texts[-1].file.path
        content, name = path.read_bytes(), manifest.texts[-1].file.path
        older = self.store / "manifests" / f"{manifest.generation - 1:05d}.json"
        if self.before is None or not older.exists() or name.encode() in older.read_bytes():
            return
        path.write_bytes(content[:-1])
        assert roll_back(self.store).back_to == manifest.generation - 1
        self.kept, self.next_number = self.before
        self.before = None
        self.has_damage = True

    def check(self, reader):
        numbers = {number: identifier for identifier, (number, _, _) in self.kept.items()}
        assert live_numbers(reader) == sorted(numbers)
        rows = contents(reader)
        expected = [(numbers[number], *self.kept[numbers[number]][1:]) for number in sorted(numbers)]
        assert [row[:3] for row in rows] == expected
        self.check_vectors(reader)
        return rows

    def check_vectors(self, reader):
        question = self.sentences.question("w1 t2 w7")
        scores = {}
        for number, *passage in self.kept.values():
            if tuple(passage) not in self.vectors:
                self.vectors[tuple(passage)] = self.sentences.passages([passage])[0]
            scores[number] = self.vectors[tuple(passage)] @ question
        hits = reader.search_dense(question, len(scores) + 5)
        assert sorted(hit.number for hit in hits) == sorted(scores)
        found, expected = ([hit.score for hit in hits], [scores[hit.number] for hit in hits])
        assert_close(np.array(found), np.array(expected), "dense_score")
        assert reader.num_without_vector == 0


def run(folder, bundle, engine, steps, seed):
    model = Model(folder, bundle, engine, seed)
    held = []
    with ExitStack() as readers:
        for step in range(steps):
            model.step()
            if model.random.random() < 0.05:
                model.go_back()
            with MemoryStore.open(model.store, model.opened) as reader:
                model.check(reader)
            if model.random.random() < 0.1 and len(held) < 4:
                reader = readers.enter_context(MemoryStore.open(model.store, model.opened))
                held.append((reader, contents(reader), [search_ids(reader, asked) for asked in QUESTIONS]))
            if held and model.random.random() < 0.2:
                reader, rows, found = held.pop(model.random.randrange(len(held)))
                reader._shards.clear()
                assert contents(reader) == rows, step
                assert [search_ids(reader, asked) for asked in QUESTIONS] == found, step
                reader.close()
            if step % 25 == 24:
                if model.has_damage:  # of a generation that was rolled back, until nobody has it
                    compact_store(model.store)
                report = verify_store(model.store)
                assert (report.damaged, report.unnamed) == ((), ()), step
    compact_store(model.store)
    manifest = read_store_manifest(model.store)
    named = {shard.file.path for shard in read_shards(model.store, manifest)}
    assert {f"shards/{path.name}" for path in (model.store / "shards").iterdir()} == named
    assert {path.name for path in model.store.iterdir()} & {"manifests", "dropped", "change.json"} == set()
    return model


def check_equal_to_a_build(model, engine):
    """Compacted, it ranks and remembers as a build of what is left does; emptied, it finds nothing."""
    if not model.kept:  # nothing that a build takes
        with MemoryStore.open(model.store, model.opened) as changed:
            assert contents(changed) == []
            assert [search_ids(changed, question) for question in QUESTIONS] == [[]] * len(QUESTIONS)
        model.append()
        compact_store(model.store)
    ordered = sorted(model.kept.items(), key=lambda item: item[1][0])
    rows = [{"id": identifier, "title": title, "text": text} for identifier, (_, title, text) in ordered]
    fresh = model.folder / "fresh"
    build_store(
        model.bundle, write_rows(model.folder / "left.jsonl", rows), fresh, batch_tokens=60, index=engine
    )
    with MemoryStore.open(fresh, model.opened) as expected, MemoryStore.open(model.store, model.opened) as changed:
        assert contents(changed) == contents(expected)
        for question in QUESTIONS:
            assert search_ids(changed, question) == search_ids(expected, question)


@pytest.fixture
def _small_limits(monkeypatch):
    """So that a few steps merge, list shards and file tombstones."""
    monkeypatch.setattr(merge_policy, "PARTS", 3)
    for module in (commit, shard_lists):
        monkeypatch.setattr(module, "INLINE_SHARDS", 4)
        monkeypatch.setattr(module, "LISTED_SHARDS", 3)
    monkeypatch.setattr(commit, "INLINE_TOMBSTONES", 5)


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
@pytest.mark.parametrize("steps", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_any_changes_are_those_of_a_dict(bundle, tmp_path, engine, steps):
    seed = random.SystemRandom().randrange(10**6)  # an argument of `run`: it is shown where one fails
    check_equal_to_a_build(run(tmp_path, bundle, engine, steps, seed), engine)


@pytest.mark.usefixtures("_small_limits")
def test_a_store_with_lists_is_converted_repaired_and_read(bundle, tmp_path):
    model = Model(tmp_path, bundle, "fts5", 1)
    for _ in range(6):
        model.append()
    manifest = read_store_manifest(model.store)
    assert manifest.shard_lists
    int8 = Bundle.open(make_bundle(tmp_path / "int8", codecs=("int8",)))
    convert_store(model.store, tmp_path / "converted", "int8")
    with MemoryStore.open(tmp_path / "converted", int8) as converted:
        assert live_numbers(converted) == sorted(number for number, _, _ in model.kept.values())
    with MemoryStore.open(model.store, model.opened) as reader:
        before = model.check(reader)
    listed = read_shards(model.store, manifest)[0].file.path
    lists = manifest.shard_lists[0].file.path
    for path in (listed, lists):
        content = bytearray((model.store / path).read_bytes())
        content[len(content) // 2] ^= 1
        (model.store / path).write_bytes(content)
    assert [damage.path for damage in verify_store(model.store).damaged] == [lists]
    repair_store(model.store, bundle_directory=bundle, batch_tokens=60)
    compact_store(model.store)  # the generation before has the damaged shard still
    assert verify_store(model.store).damaged == ()
    with MemoryStore.open(model.store, model.opened) as reader:
        assert contents(reader) == before


@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
def test_a_store_that_was_emptied_finds_nothing_and_grows_again(bundle, tmp_path, engine):
    model = Model(tmp_path, bundle, engine, 3)
    while model.kept:
        model.delete()
    compact_store(model.store)
    check_equal_to_a_build(model, engine)
