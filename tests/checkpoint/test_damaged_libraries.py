"""Checkpoints' files, damaged: torch.load, safetensors, sentencepiece and msgpack are named, however they fail."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from glimmer_export.exporter.checkpoint.pickle_files import PickleFiles, load_pickle
from glimmer_export.exporter.checkpoint.safetensors_files import SafetensorsFiles
from glimmer_export.exporter.checkpoint.t5x.msgpack_file import read_msgpack
from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer
from glimmer_export.runtime.contract import CheckpointError, TokenizerError
from tests.checkpoint.test_sentencepiece import train

TENSORS = {"a": torch.ones(4, 4), "b": torch.zeros(3, dtype=torch.bfloat16), "c": torch.arange(5)}


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    generator = random.Random(seed)
    for number in range(count):
        changed, place = bytearray(content), generator.randrange(len(content))
        if number % 4 == 3:
            yield bytes(changed[:place])
            continue
        length = (1, 2, 16)[number % 4]
        changed[place : place + length] = generator.randbytes(len(changed[place : place + length]))
        yield bytes(changed)


def pickled(*, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(TENSORS, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def with_pickle(content: bytes, change: bytes) -> bytes:
    """The zip file of torch.save, whose pickle is another, with the right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            target.writestr(name, change if name.endswith("data.pkl") else source.read(name))
    return stream.getvalue()


def outcomes_of(path: Path, contents: Iterator[bytes], read) -> set[str]:
    found = set()
    for content in contents:
        path.write_bytes(content)
        try:
            read()
            found.add("read")
        except (CheckpointError, TokenizerError):
            found.add("named")
    return found


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:Detected pickle protocol")  # torch says so
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle in a zip"])
def test_any_byte_of_a_pickle(tmp_path, form):
    path, content = tmp_path / "pytorch_model.bin", pickled(zipped=form != "legacy")
    contents = damaged(content, 150)
    if form == "pickle in a zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            inner = archive.read(name)
        contents = (with_pickle(content, changed) for changed in damaged(inner, 200))
    assert outcomes_of(path, contents, lambda: PickleFiles(tmp_path)) >= {"named"}


@pytest.mark.parametrize("kind", [AttributeError, KeyError, RuntimeError])
def test_a_bug_beside_torch_load_is_seen(tmp_path, monkeypatch, kind):
    def fails(*_: object) -> None:
        raise kind("a planted bug")

    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickled(zipped=True))
    monkeypatch.setattr("glimmer_export.exporter.checkpoint.pickle_files.check_dense", lambda *_, **__: fails())
    with pytest.raises(kind, match="a planted bug"):
        PickleFiles(tmp_path)
    assert set(load_pickle(path)) == set(TENSORS)


def test_any_byte_of_safetensors(tmp_path):
    def read() -> None:
        files = SafetensorsFiles(tmp_path)
        for name in files:
            files.tensor(name)
        files.specs()

    contents = damaged(save(TENSORS), 150)
    assert outcomes_of(tmp_path / "model.safetensors", contents, read) == {"named", "read"}


def test_a_safetensors_file_that_the_system_will_not_map(tmp_path, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise MemoryError("Cannot allocate memory (os error 12)")

    (tmp_path / "model.safetensors").write_bytes(save(TENSORS))
    monkeypatch.setattr("glimmer_export.runtime.array_files.safe_open", fails)
    with pytest.raises(CheckpointError, match="Cannot allocate memory"):
        SafetensorsFiles(tmp_path)


def test_any_byte_of_a_sentencepiece_model(tmp_path):
    path = tmp_path / "spiece.model"
    contents = damaged(train("nmt_nfkc"), 150)
    assert outcomes_of(path, contents, lambda: find_tokenizer(tmp_path, None)) == {"named", "read"}


def test_a_piece_that_is_not_utf_8(tmp_path):
    content = train("nmt_nfkc")
    assert b"\n\x03\xe2\x96\x81\x15" in content  # the piece for a space, and its score
    changed = content.replace(b"\n\x03\xe2\x96\x81\x15", b"\n\x03\xff\x96\x81\x15")
    (tmp_path / "spiece.model").write_bytes(changed)
    with pytest.raises(TokenizerError, match=r"spiece\.model: expected .*, found a piece that is not UTF-8"):
        find_tokenizer(tmp_path, None)


@pytest.mark.parametrize("content", [
    b"", b"\xc1", b"\x91" * 3000, b"\xdd\xff\xff\xff\xff", b"\x81\x90\x01",
    b"\xc7\x0c\xff" + b"\xff" * 12, b"\xa2\xff\xff",
    b"\x81\xa6target\x81\xa1a\xc7\x01\x01\x05", b"\x81\xa6target\x81\xa1a\xc7\x03\x01\x92\x01\x02",
    b"\x81\xa6target\x81\xa1a\xc7\x01\x01\xc1",
])
def test_msgpack_that_flax_never_wrote(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint"):
        read_msgpack(tmp_path / "checkpoint")
