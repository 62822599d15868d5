"""What a file states is no size to allocate: arrays and tensors that its bytes cannot hold are named."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import pickle_files
from glimmer_export.exporter.checkpoint.pickle_files import PickleFiles
from glimmer_export.exporter.checkpoint.t5x import T5xArrays
from glimmer_export.runtime.contract import CheckpointError

torch = pytest.importorskip("torch")


def saved(directory: Path, content: object, *, zipped: bool = True) -> Path:
    torch.save(content, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return directory


@pytest.mark.parametrize("zipped", [True, False])
def test_one_tensor_under_thousands_of_names_is_named(tmp_path, monkeypatch, zipped):
    monkeypatch.setattr(pickle_files, "MIN_SHARED_BYTES", 1 << 16)
    tensor = torch.ones(32, 32)
    tied = saved(tmp_path, dict.fromkeys("abcd", tensor), zipped=zipped)
    assert set(PickleFiles(tied).shapes()) == set("abcd")
    with pytest.raises(CheckpointError, match="share their values at most, found 409600 bytes of tensors in 4096"):
        PickleFiles(saved(tmp_path, {f"{number}": tensor for number in range(100)}, zipped=zipped))


@pytest.mark.parametrize("zipped", [True, False])
def test_one_value_that_stands_for_gigabytes_is_named(tmp_path, zipped):
    spread = torch.zeros(1).expand(1 << 18, 1 << 18)
    with pytest.raises(CheckpointError, match="found 4 bytes for 68719476736 values"):
        PickleFiles(saved(tmp_path, {"a": spread}, zipped=zipped))


class Filled:
    """Bytes of any number, in a pickle of a few."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (64,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_for_bytes_of_any_number_is_refused_unread(tmp_path, monkeypatch, zipped):
    saved(tmp_path, {"a": Filled()}, zipped=zipped)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="found a pickle that calls bytearray"):
        PickleFiles(tmp_path)


def test_a_zip_file_that_cannot_be_looked_through_is_refused_unread(tmp_path, monkeypatch):
    """A name that is not UTF-8 stops Python's reader and not torch's, which would read the pickle behind it."""
    path = saved(tmp_path, {"a": Filled()}) / "pytorch_model.bin"
    content = path.read_bytes()
    directory = content.rindex(b"PK\x01\x02")  # of the last record: 8 bytes on its flags, 46 on its name
    flags = int.from_bytes(content[directory + 8 : directory + 10], "little") | 0x800
    path.write_bytes(
        content[: directory + 8] + flags.to_bytes(2, "little") + content[directory + 10 : directory + 46] + b"\xff"
        + content[directory + 47 :]
    )
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="expected a whole file of tensors"):
        PickleFiles(tmp_path)


@pytest.mark.parametrize("chunks", [[1 << 20, 1 << 20], [1024, 1024]])
def test_zarr_that_states_terabytes_is_named(tmp_path, chunks):
    pytest.importorskip("tensorstore", reason="tensorstore comes with the extra `t5x`")
    metadata = {
        "zarr_format": 2, "shape": [1 << 20, 1 << 20], "chunks": chunks, "dtype": "<f4", "compressor": None,
        "fill_value": 0.0, "filters": None, "order": "C",
    }
    folder = tmp_path / "target.decoder.kernel"
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(metadata), encoding="utf-8")
    arrays = T5xArrays(tmp_path)
    with pytest.raises(CheckpointError, match=r"arrays of at most \d+ bytes in files of \d+, found 4398046511104"):
        arrays.check_sizes()


@pytest.mark.parametrize(("golden", "name"), [
    ("orbax_plain", "target.decoder.decoder_norm.scale/0"),
    ("orbax_plain", "target.decoder.decoder_norm.scale/.zarray"), ("orbax_ocdbt", "manifest.ocdbt"),
])
def test_a_file_of_gigabytes_in_the_place_of_a_few_bytes_is_named(tmp_path, golden, name):
    pytest.importorskip("tensorstore", reason="tensorstore comes with the extra `t5x`")
    directory = shutil.copytree(Path(__file__).with_name("golden") / golden, tmp_path / "checkpoint")
    with (directory / name).open("r+b") as stream:
        stream.truncate(1 << 36)
    with pytest.raises(CheckpointError, match=f"expected at most 16777216 bytes, found {1 << 36}"):
        T5xArrays(directory)


def nested(levels: int, opcode: bytes) -> bytes:
    """A pickle of a mapping whose key is a tuple of a tuple, and so on: of itself twice (2, TUPLE2), or once."""
    return b"\x80\x02})" + opcode * levels + b"K\x01s."


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (nested(60, b"2\x86"), "one of more, in itself again and again"), (nested(1 << 18, b"\x85"), "deeper ones"),
        (b"\x80\x02" + b"N0" * (1 << 18) + b"N.", "more"),
    ],
    ids=["again and again", "deep", "long"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_whose_keys_are_visited_without_end_is_refused_unread(tmp_path, monkeypatch, zipped, content, found):
    """Sixty tuples, each the one before twice: torch would look at 10^18 parts of the key, or at a stack's end."""
    path = tmp_path / "pytorch_model.bin"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        assert b"\x80\x02}q\x00." in whole  # the third of them, behind what says that torch wrote it
        path.write_bytes(whole.replace(b"\x80\x02}q\x00.", content))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match=f"found {found}; do not load it"):
        PickleFiles(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_is_far_from_those_bounds(tmp_path, monkeypatch, zipped):
    monkeypatch.setattr(pickle_files, "MAX_OPCODES", 64 * 200)
    monkeypatch.setattr(pickle_files, "MAX_PARTS", 64)
    monkeypatch.setattr(pickle_files, "MAX_KEY_PARTS", 64 * 200)
    monkeypatch.setattr(pickle_files, "MAX_DEPTH", 8)
    content = {f"encoder.block.{number}.weight": torch.nn.Parameter(torch.ones(2, 2)) for number in range(200)}
    assert len(PickleFiles(saved(tmp_path, content, zipped=zipped)).shapes()) == 200
