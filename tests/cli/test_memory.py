"""The commands on stores that are there: what they print, how they exit, and what a session then answers."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import CorpusError, OptionError, PassageError, StoreError, TakenIdError
from tests.bundle_factory import write_rows

QUESTION = "w20 w31"


@pytest.fixture
def store(glimmer, tmp_path):
    return shutil.copytree(glimmer.store, tmp_path / "store")


@pytest.fixture
def new(tmp_path):
    return write_rows(tmp_path / "new.jsonl", [{"id": "new", "title": "t", "text": "w20 w31 w20 w31"}])


def ids(cli, bundle, store):
    found = cli("ask", bundle, "--store", store, QUESTION, "--json").json
    return [passage["id"] for passage in found["passages"]]


def test_a_session_answers_from_what_was_appended_deleted_and_compacted(cli, glimmer, store, new):
    with Session.open(glimmer.bundle, store) as before:
        expected = before.answer(QUESTION)
        added = cli("memory", "append", store, "--bundle", glimmer.bundle, "--corpus", new, "--json").json
        assert (added["generation"], added["appended"], added["replaced"]) == (1, 1, 0)
        first, second, *_ = ids(cli, glimmer.bundle, store)
        assert first == "new"
        deleted = cli("memory", "delete", store, "--id", "new", "--id", json.dumps(second), "--json").json
        assert (deleted["generation"], deleted["deleted"], deleted["passages"]) == (2, 2, added["passages"] - 2)
        assert not {"new", second} & set(ids(cli, glimmer.bundle, store))
        compacted = cli("memory", "compact", store, "--json").json
        assert (compacted["generation"], compacted["removed"], compacted["open"]) == (3, [1, 2], [0])
        assert not {"new", second} & set(ids(cli, glimmer.bundle, store))
        again = before.answer(QUESTION)
    assert (again.answer, again.passages) == (expected.answer, expected.passages)
    assert cli("memory", "compact", store, "--json").json["removed"] == [0]


def test_what_the_commands_print(cli, glimmer, store, new):
    done = cli("memory", "append", store, "--bundle", glimmer.bundle, "--corpus", new)
    assert "generation 1" in done.out
    assert "1 passages appended, 0 replaced" in done.out
    assert re.search(r"keeps the appended passages \d+\.\d dB above its error, the store's own \d+\.\d dB", done.out)
    assert "already" in cli("memory", "append", store, "--bundle", glimmer.bundle, "--corpus", new).out
    assert "1 passages deleted" in cli("memory", "delete", store, "--id", "new").out
    assert "already" in cli("memory", "delete", store, "--id", "new").out
    with Session.open(glimmer.bundle, store):
        assert "still open, and kept: generation 2" in cli("memory", "compact", store).out
    done = cli("memory", "compact", store)
    assert "nothing to pack" in done.out
    assert "removed: generation 2" in done.out


def test_what_a_codec_keeps_is_reported(cli, glimmer, store, new, tmp_path, monkeypatch):
    built = cli("memory", "build", glimmer.bundle, "--corpus", glimmer.corpus, "-o", tmp_path / "built")
    assert re.search(r"fp16 keeps the memory \d+\.\d dB above its error", built.out)
    again = cli("memory", "build", glimmer.bundle, "--corpus", glimmer.corpus, "-o", tmp_path / "built", "--json").json
    assert again["codec_snr"]["fitted_db"] is None
    assert again["codec_snr"]["outside_db"] > 60
    assert again["warnings"] == []
    done = cli("memory", "convert", store, "--codec", "int4", "-o", tmp_path / "int4")
    assert "dB above its error, on the passages that it was fitted to: there are no others" in done.out
    converted = cli("memory", "convert", store, "--codec", "int8", "-o", tmp_path / "int8", "--json").json
    assert converted["codec_snr"]["fitted_db"] > 30
    monkeypatch.setattr("glimmer_export.exporter.memory.append.append_warnings", lambda *_: ("unlike the store's own",))
    appended = cli("memory", "append", store, "--bundle", glimmer.bundle, "--corpus", new)
    assert "warning unlike the store's own" in appended.out


def test_damage_is_found_and_mended(cli, glimmer, store):
    done = cli("memory", "verify", store)
    assert done.code == 0
    assert "whole" in done.out
    shard = store / "shards" / "00000.safetensors"
    expected = shard.read_bytes()
    shard.write_bytes(expected[:-1])
    done = cli("memory", "verify", store)
    assert done.code == 1
    assert f"glimmer-export memory repair {store} --bundle BUNDLE" in done.out
    done = cli("memory", "verify", store, "--json")
    assert done.code == 1
    assert [item["path"] for item in json.loads(done.out)["damaged"]] == ["shards/00000.safetensors"]
    assert "restored" in cli("memory", "repair", store, "--bundle", glimmer.bundle).out
    assert shard.read_bytes() == expected
    assert "nothing is damaged" in cli("memory", "repair", store).out
    report = cli("memory", "repair", store, "--json").json
    assert (report["generation"], report["restored"], report["renewed"]) == (0, [], [])


def test_a_store_goes_back(cli, store):
    cli("memory", "delete", store, "--id", "1")
    (store / "passages.00001.sqlite").unlink()
    done = cli("memory", "repair", store, "--rollback")
    assert done.code == 0
    assert "what it was in generation 0, as generation 2" in done.out
    assert cli("memory", "verify", store).code == 1  # for the damaged generation, which may still be open
    assert cli("memory", "compact", store, "--json").json["removed"] == [0, 1]
    assert cli("memory", "verify", store, "--json").json["generation"] == 2


def test_bad_input_is_refused(refused, glimmer, store, new, tmp_path):
    assert "--ids or --id" in refused(OptionError, "memory", "delete", store)
    assert "passage id 'absent'" in refused(PassageError, "memory", "delete", store, "--id", "absent")
    refused(CorpusError, "memory", "delete", store, "--ids", tmp_path / "absent.jsonl")
    refused(StoreError, "memory", "delete", tmp_path / "absent", "--id", "1")
    refused(StoreError, "memory", "compact", tmp_path)
    refused(StoreError, "memory", "verify", tmp_path / "absent")
    refused(StoreError, "memory", "repair", tmp_path / "absent")
    refused(StoreError, "memory", "repair", tmp_path / "absent", "--rollback")
    refused(OptionError, "memory", "repair", store, "--rollback")
    refused(OptionError, "memory", "repair", store, "--rollback", "--bundle", glimmer.bundle)
    refused(StoreError, "memory", "append", tmp_path / "absent", "--bundle", glimmer.bundle, "--corpus", new)
    row = write_rows(tmp_path / "there.jsonl", [{"id": 1, "text": "w1"}])
    assert "--replace" in refused(TakenIdError, "memory", "append", store, "--bundle", glimmer.bundle, "--corpus", row)
