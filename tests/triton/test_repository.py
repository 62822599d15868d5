"""`glimmer-export triton`: what a model repository holds, what Triton reads in it, and that it is whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.memory import delete_passages
from glimmer_export.exporter.memory.copy import copy_store
from glimmer_export.exporter.triton import TritonOptions, repository, write_repository
from glimmer_export.exporter.triton.config import config_text
from glimmer_export.runtime import BundleError, OptionError, OutputError, Session, StoreError, TokenizerError
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import rewrite

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
BUNDLE, STORE = GOLDEN / "bundle", GOLDEN / "store-int8"
QUESTION = "w1"
FIELDS = """
name: "model_config.proto", package: "inference", syntax: "proto3"
enum_type {
  name: "DataType", value { name: "TYPE_INVALID", number: 0 }, value { name: "TYPE_INT32", number: 8 }
  value { name: "TYPE_STRING", number: 13 }
}
message_type {
  name: "Tensor"
  field { name: "name", number: 1, label: LABEL_OPTIONAL, type: TYPE_STRING }
  field { name: "data_type", number: 2, label: LABEL_OPTIONAL, type: TYPE_ENUM, type_name: ".inference.DataType" }
  field { name: "dims", number: 4, label: LABEL_REPEATED, type: TYPE_INT64 }
  field { name: "optional", number: 8, label: LABEL_OPTIONAL, type: TYPE_BOOL }
}
message_type {
  name: "Group"
  enum_type { name: "Kind", value { name: "KIND_AUTO", number: 0 }, value { name: "KIND_CPU", number: 2 } }
  field { name: "count", number: 2, label: LABEL_OPTIONAL, type: TYPE_INT32 }
  field { name: "kind", number: 4, label: LABEL_OPTIONAL, type: TYPE_ENUM, type_name: ".inference.Group.Kind" }
}
message_type {
  name: "Batching"
  field { name: "max_queue_delay_microseconds", number: 2, label: LABEL_OPTIONAL, type: TYPE_UINT64 }
}
message_type {
  name: "Parameter", field { name: "string_value", number: 1, label: LABEL_OPTIONAL, type: TYPE_STRING }
}
message_type {
  name: "Model"
  field { name: "name", number: 1, label: LABEL_OPTIONAL, type: TYPE_STRING }
  field { name: "max_batch_size", number: 4, label: LABEL_OPTIONAL, type: TYPE_INT32 }
  field { name: "input", number: 5, label: LABEL_REPEATED, type: TYPE_MESSAGE, type_name: ".inference.Tensor" }
  field { name: "output", number: 6, label: LABEL_REPEATED, type: TYPE_MESSAGE, type_name: ".inference.Tensor" }
  field { name: "instance_group", number: 7, label: LABEL_REPEATED, type: TYPE_MESSAGE, type_name: ".inference.Group" }
  field {
    name: "dynamic_batching", number: 11, label: LABEL_OPTIONAL, type: TYPE_MESSAGE, type_name: ".inference.Batching"
  }
  field {
    name: "parameters", number: 14, label: LABEL_REPEATED, type: TYPE_MESSAGE, type_name: ".inference.Model.Each"
  }
  field { name: "backend", number: 17, label: LABEL_OPTIONAL, type: TYPE_STRING }
  nested_type {
    name: "Each", options { map_entry: true }
    field { name: "key", number: 1, label: LABEL_OPTIONAL, type: TYPE_STRING }
    field { name: "value", number: 2, label: LABEL_OPTIONAL, type: TYPE_MESSAGE, type_name: ".inference.Parameter" }
  }
}
"""
"""Of Triton's ModelConfig, what a file of ours may have: anything else is a fault of the file."""


def parsed(text: str) -> Any:
    """A config.pbtxt as protobuf reads it."""
    file = text_format.Parse(FIELDS, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    model = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.Model"))
    return text_format.Parse(text, model())


def settings(place: Path, name: str = "glimmer") -> dict[str, str]:
    config = parsed((place / name / "config.pbtxt").read_text(encoding="utf-8"))
    assert config.name == name
    return {key: value.string_value for key, value in config.parameters.items()}


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_a_repository_of_copies_answers_wherever_it_is(cli, tmp_path):
    report = cli("triton", BUNDLE, "--store", STORE, "-o", tmp_path / "repo", "--json").json
    assert report["bytes"] == sum(path.stat().st_size for path in (tmp_path / "repo").rglob("*") if path.is_file())
    moved = (tmp_path / "repo").rename(tmp_path / "elsewhere")
    assert {path.name for path in moved.iterdir()} == {"glimmer"}
    assert {path.name for path in (moved / "glimmer").iterdir()} == {"1", "config.pbtxt"}
    home = moved / "glimmer" / "1"
    assert {path.name for path in home.iterdir()} == {"bundle", "model.py", "store"}
    assert files(home / "bundle") == files(BUNDLE)
    assert not [path for path in moved.rglob("*") if path.is_symlink()]
    read = settings(moved)
    with Session.open(home / read["bundle"], home / read["store"]) as copy, Session.open(BUNDLE, STORE) as source:
        assert copy.answer(QUESTION).token_ids == source.answer(QUESTION).token_ids != ()


def test_triton_is_told_what_the_model_takes_and_gives(tmp_path):
    options = TritonOptions(
        name="qa-2.1", max_batch_size=3, threads=2, backend="onnxruntime-cpu", verify=False, compute_precision="fp32",
        draft_tokens=2,
    )
    write_repository(BUNDLE, STORE, tmp_path / "repo", options)
    config = parsed((tmp_path / "repo" / "qa-2.1" / "config.pbtxt").read_text(encoding="utf-8"))
    assert (config.backend, config.max_batch_size) == ("python", 3)
    assert config.HasField("dynamic_batching")
    assert [(each.name, each.data_type, list(each.dims), each.optional) for each in config.input] == [
        ("question", 13, [1], False), ("top_k", 8, [1], True), ("top_m", 8, [1], True),
    ]  # fmt: skip
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [
        ("answer", 13, [1]), ("record", 13, [1]),
    ]  # fmt: skip
    assert [each.count for each in config.instance_group] == [1]
    assert settings(tmp_path / "repo", "qa-2.1") == {
        "bundle": "bundle", "store": "store", "backend": "onnxruntime-cpu", "retrieval": "bm25",
        "require_parity": "no", "verify": "no", "threads": "2", "compute_precision": "fp32", "draft_tokens": "2",
    }  # fmt: skip


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_path_comes_through_the_configuration(path):
    assert parsed(config_text("m", 1, {"bundle": path})).parameters["bundle"].string_value == path


def test_with_link_the_repository_names_the_paths(cli, tmp_path, monkeypatch):
    for name, source in (("bundle", BUNDLE), ("store", STORE)):
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "current").symlink_to("bundle")
    monkeypatch.chdir(tmp_path)
    done = cli("triton", "current", "--store", "store", "-o", "repo", "--link")
    assert done.code == 0, done.err
    assert files(tmp_path / "repo") == {"glimmer/config.pbtxt", "glimmer/1/model.py"}
    read = settings(tmp_path / "repo")
    assert (read["bundle"], read["store"]) == (str(tmp_path / "bundle"), str(tmp_path / "store"))


def test_links_of_a_bundle_and_a_store_are_followed(tmp_path):
    """As Kubernetes' volumes and download caches lay them out."""
    for name, source in (("bundle", BUNDLE), ("store", STORE)):
        for file in files(source):
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).symlink_to(source / file)
    write_repository(tmp_path / "bundle", tmp_path / "store", tmp_path / "repo")
    home = tmp_path / "repo" / "glimmer" / "1"
    assert not [path for path in home.rglob("*") if path.is_symlink()]
    Session.open(home / "bundle", home / "store").close()


def test_engines_and_parity_travel_and_what_is_unfinished_does_not(tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle")
    for name in ("engines/of-a-device/a.engine", "engines/.partial/of-a-device/b.engine", "parity.json"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).touch()
    write_repository(bundle, STORE, tmp_path / "repo")
    copied = files(tmp_path / "repo" / "glimmer" / "1" / "bundle")
    assert copied - files(BUNDLE) == {"engines/of-a-device/a.engine"}
    assert "parity.json" in copied


def test_of_a_changed_store_the_newest_generation_is_copied(tmp_path):
    store = shutil.copytree(STORE, tmp_path / "store")
    delete_passages(store, [1])
    write_repository(BUNDLE, store, tmp_path / "repo")
    copy = tmp_path / "repo" / "glimmer" / "1" / "store"
    assert not (copy / "manifests").exists()
    with MemoryStore.open(copy, Bundle.open(BUNDLE)) as opened:
        assert opened.manifest.generation == 1
        assert opened.num_passages == MemoryStore.open(STORE, Bundle.open(BUNDLE)).num_passages - 1


@pytest.mark.parametrize("store", ["store-fp16", "store-pq8x", "store-tantivy"])
def test_a_store_of_any_codec_and_index_is_copied_whole(tmp_path, store):
    write_repository(BUNDLE, GOLDEN / store, tmp_path / "repo")
    with Session.open(BUNDLE, tmp_path / "repo" / "glimmer" / "1" / "store") as copy:
        assert copy.answer(QUESTION).passages


def test_a_store_that_changes_while_it_is_copied_is_not_mixed(tmp_path):
    store = shutil.copytree(STORE, tmp_path / "store")
    with MemoryStore.open(store, Bundle.open(BUNDLE)) as opened:
        delete_passages(store, [1])
        with pytest.raises(StoreError, match="a change that came in its place"):
            copy_store(opened, tmp_path / "copy")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("link", [[], ["--link"]], ids=["copied", "linked"])
@pytest.mark.parametrize(
    ("name", "file", "error"), [
        ("bundle", "graphs/weights.data", BundleError), ("bundle", MANIFEST, BundleError),
        ("store", "shards/00000.safetensors", StoreError), ("store", "passages.sqlite", StoreError),
    ],
)  # fmt: skip
def test_what_is_damaged_is_not_published(refused, tmp_path, name, file, error, link):
    for each, source in (("bundle", BUNDLE), ("store", STORE)):
        shutil.copytree(source, tmp_path / each)
    damaged(tmp_path / name / file)
    refused(error, "triton", tmp_path / "bundle", "--store", tmp_path / "store", "-o", tmp_path / "repo", *link)


def test_a_bundle_without_a_tokenizer_is_refused(refused, tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle")
    rewrite(bundle / MANIFEST, tokenizer=None, tokenizer_digest=None)
    refused(TokenizerError, "triton", bundle, "--store", STORE, "-o", tmp_path / "repo")


def test_a_full_disk_leaves_nothing(refused, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(repository, "copy_store", full)
    assert "full disk" in refused(OutputError, "triton", BUNDLE, "--store", STORE, "-o", tmp_path / "repo")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", ".hidden", "-x", "name with blanks", "ä", "x" * 101])
def test_a_name_that_is_no_folders(refused, tmp_path, name):
    refused(OptionError, "triton", BUNDLE, "--store", STORE, "-o", tmp_path / "repo", f"--name={name}")


@pytest.mark.parametrize(
    ("error", "option", "value"),
    [
        (OptionError, "--backend", "abacus"), (StoreError, "--retrieval", "dense"),
        (BundleError, "--require-parity", "witnessed"),
    ],
)  # fmt: skip
def test_what_no_session_would_open_with(refused, tmp_path, error, option, value):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("parity.json"))
    refused(error, "triton", bundle, "--store", STORE, "-o", tmp_path / "repo", option, value)


def test_a_store_of_another_checkpoint_is_refused(refused, tmp_path):
    bundle = GOLDEN / "schema5" / "bundle-fid"
    refused(StoreError, "triton", bundle, "--store", STORE, "-o", tmp_path / "repo")


def test_only_a_repository_of_ours_is_replaced(refused, cli, tmp_path):
    words = ("triton", BUNDLE, "--store", STORE, "-o", tmp_path / "repo")
    assert cli(*words).code == 0
    refused(OutputError, *words)
    assert cli(*words, "--overwrite", "--link", "--name", "other").code == 0
    assert files(tmp_path / "repo") == {"other/config.pbtxt", "other/1/model.py"}
    theirs = tmp_path / "repo" / "resnet" / "config.pbtxt"
    theirs.parent.mkdir()
    theirs.write_text('name: "resnet"\n', encoding="utf-8")
    refused(OutputError, *words, "--overwrite")


def test_a_link_in_the_outputs_place_leads_to_what_is_replaced(cli, tmp_path):
    words = ("triton", BUNDLE, "--store", STORE, "--link", "-o")
    assert cli(*words, tmp_path / "real").code == 0
    (tmp_path / "repo").symlink_to("real")
    assert cli(*words, tmp_path / "repo", "--overwrite", "--name", "second").code == 0
    assert (tmp_path / "repo").is_symlink()
    assert {path.name for path in (tmp_path / "real").iterdir()} == {"second"}
