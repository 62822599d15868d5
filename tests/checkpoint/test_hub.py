"""A model of the hub by its id, from a hub that is a folder: what is downloaded, and every way in which it is not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from glimmer_export.exporter.checkpoint.hub import download_model, is_hub_id
from glimmer_export.runtime.contract import CheckpointError, OutputError
from tests.t5_factory import make_t5, save_t5

NAME, REVISION = "google/t5-v1_1-tiny", "0123abcd"
OTHERS = ("README.md", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "rust_model.ot")


class Hub:
    """The hub's files in a folder; a download leaves a link to a blob, as the hub's own cache has it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.taken: list[str] = []
        self.fails: Callable[[], BaseException] | None = None

    def model_info(self, name: str) -> SimpleNamespace:
        if self.fails is not None:
            raise self.fails()
        assert name == NAME
        files = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return SimpleNamespace(sha=REVISION, siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(self, name: str, file: str, *, revision: str) -> str:
        assert (name, revision) == (NAME, REVISION)
        self.taken.append(file)
        link = self.cache / "snapshots" / revision / file
        blob = self.cache / "blobs" / file
        for place in (link, blob):
            place.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes((self.folder / file).read_bytes())
        link.symlink_to(blob)
        return str(link)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    """A T5 in safetensors, with what else a repository holds."""
    folder = tmp_path / "repository"
    save_t5(make_t5("v1.1"), folder)
    for name in OTHERS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    found = Hub(folder, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return found


def download(tmp_path: Path) -> Path:
    return download_model(NAME, output=tmp_path / "out", overwrite=False, progress=False)


def test_only_what_is_read_is_downloaded(hub, tmp_path):
    directory = download(tmp_path)
    assert set(hub.taken) == {"config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in directory.iterdir()} == set(hub.taken)


def test_pickles_are_taken_if_there_is_nothing_else(hub, tmp_path):
    save_t5(make_t5("v1.1"), hub.folder, "sharded pickle")
    (hub.folder / "model.safetensors").unlink(missing_ok=True)
    download(tmp_path)
    shards = {path.name for path in hub.folder.glob("pytorch_model-*")}
    assert len(shards) > 1
    assert set(hub.taken) == {"config.json", "generation_config.json", "pytorch_model.bin.index.json", *shards}


def test_shards_of_safetensors_come_before_a_pickle(hub, tmp_path):
    (hub.folder / "model.safetensors").unlink()
    save_t5(make_t5("v1.1"), hub.folder, "sharded safetensors")
    (hub.folder / "pytorch_model.bin").write_bytes(b"not needed")
    download(tmp_path)
    shards = {path.name for path in hub.folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert set(hub.taken) == {"config.json", "generation_config.json", "model.safetensors.index.json", *shards}


def answer(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    """What the hub's client raises; releases differ in what they want of a response, which is not looked at."""
    error = kind.__new__(kind)
    error.args = ("401 Client Error.\n\nRepository Not Found",)
    return error


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (lambda: answer(RepositoryNotFoundError), "found neither; check the name"),
        (lambda: answer(GatedRepoError), "found one with terms to accept"),
        (lambda: answer(HfHubHTTPError), "the hub answers: 401 Client Error"),
        (lambda: ConnectionError("Name or service not known"), "cannot be reached: Name or service not known"),
        (lambda: LocalEntryNotFoundError("no connection"), "cannot be reached: no connection"),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
    ids=["unknown", "gated", "answers", "no network", "half way", "full disk"],
)
def test_what_ends_a_download_is_named(hub, tmp_path, raised, said):
    hub.fails = raised
    with pytest.raises(CheckpointError, match=said):
        download(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_bug_is_no_error_of_the_hub(hub, tmp_path):
    hub.fails = lambda: AttributeError("a bug")
    with pytest.raises(AttributeError, match="a bug"):
        download(tmp_path)


def test_offline_is_said(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it; or download the model"):
        download(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_model_without_config_or_weights_says_what_is_there(hub, tmp_path, missing):
    (hub.folder / missing).unlink()
    with pytest.raises(CheckpointError, match=r"expected config.json, and model.safetensors .* found README.md, "):
        download(tmp_path)
    assert hub.taken == []


def test_an_output_that_cannot_be_made_is_refused_before_the_download(hub, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match="a path that does not exist yet"):
        download(tmp_path)
    assert hub.taken == []


@pytest.mark.parametrize("text", ["t5-small", "/models/t5", "../models/t5", "a/b/c", "-/x", "~/t5", "C:/t5"])
def test_what_is_no_id_is_a_path(text):
    assert not is_hub_id(Path(text))


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(Path(NAME))
    Path(NAME).mkdir(parents=True)
    assert not is_hub_id(Path(NAME))
