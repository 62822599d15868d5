"""What another user's files, and folders that may not be entered or written, are refused with: their name, and why.

The commands run in a process of their own, whose user may not read everything: root without that right, or any other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundle_factory import write_rows
from tests.cli.test_special_files import T5

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NOBODY = 65534
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
"""Before a command: it may read and write no more than the bits of a file's mode allow."""
RUN = """
import contextlib, io, json, sys
from glimmer_export.exporter.cli import main
for words in map(json.loads, sys.stdin):
    sys.argv, code, out, err = ["glimmer-export", *words], 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
ASKED = "--store store --questions questions.jsonl --threads 1"
LOCKED = [
    *((f"bundle/{name}", "inspect bundle", "BundleError") for name in (
        "manifest.json", "graphs/decoder_step.onnx", "graphs/weights.data", "calibration/ranges.json", "graphs", "",
    )),
    ("bundle/tokenizer.json", "ask bundle w20 --store store", "BundleError"),
    *((f"store/{name}", command, "StoreError") for name in (
        "manifest.json", "shards/00000.safetensors", "passages.sqlite", "codec.safetensors", "shards", "",
    ) for command in ("ask bundle w20 --store store",)),
    ("store/passages.sqlite", "ask bundle w20 --store store --no-verify", "StoreError"),
    ("store/shards/00000.safetensors", "ask bundle w20 --store store --no-verify", "StoreError"),
    ("store/manifest.json", "memory repair store", "StoreError"),
    ("store/manifest.json", "memory convert store -o out --codec fp16", "StoreError"),
    *((f"checkpoint/{name}", "export checkpoint -o out --no-check", "CheckpointError") for name in (
        "config.json", "model.safetensors",
    )),
    ("t5/config.json", "convert t5 --from huggingface -o out", "CheckpointError"),
    ("t5/pytorch_model.bin", "convert t5 --from huggingface -o out", "CheckpointError"),
]  # fmt: skip
"""What only another user may read, or a folder that nobody may enter; a command that reads it; and its error."""
Run = Callable[[str], "tuple[int, str, str]"]


@pytest.fixture(scope="module")
def unprivileged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command line, in the folder of `places`, without more rights than a file's mode gives."""
    root = os.geteuid() == 0
    if root and (shutil.which("setpriv") is None or subprocess.call([*WITHOUT_RIGHTS, "true"])):
        pytest.skip("root may read everything, and there is no setpriv to take that from it")
    place = tmp_path_factory.mktemp("unprivileged")
    environment = {**os.environ, "COLUMNS": "400", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [*(WITHOUT_RIGHTS if root else []), sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=place, env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(command: str) -> tuple[int, str, str]:
        process.stdin.write(json.dumps(command.split()) + "\n")
        process.stdin.flush()
        code, out, err = json.loads(process.stdout.readline())
        return code, out, err

    run.place = place  # type: ignore[attr-defined]
    yield run
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.fixture
def places(unprivileged: Any) -> Iterator[Path]:
    place: Path = unprivileged.place
    for source, name in (("bundle", "bundle"), ("bundle", "other"), ("store-int8", "store"), ("checkpoint",) * 2):
        shutil.copytree(GOLDEN / source, place / name)
    write_rows(place / "corpus.jsonl", [{"id": 900, "title": "w1", "text": "w2 w3"}])
    write_rows(place / "questions.jsonl", [{"question": "w20", "answers": ["w1"]}])
    for name in ("t5", "corpora", "locked"):
        (place / name).mkdir()
    (place / "t5" / "config.json").write_text(json.dumps(T5), encoding="utf-8")
    for name in ("ids.jsonl", "vectors.npy", "t5/pytorch_model.bin", "corpora/a.jsonl"):
        (place / name).write_text("1\n")
    for name in ("bundle", "store"):
        shutil.copytree(place / name, place / "locked" / name)
    yield place
    subprocess.run(["chmod", "-R", "u+rwx", *place.iterdir()], check=True)
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lock(path: Path) -> None:
    """Nobody may enter a folder; a file is another user's, if this one may give it away."""
    if path.is_dir():
        path.chmod(0o600)
    elif os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o600)
    else:
        path.chmod(0)


@pytest.mark.parametrize(("name", "command", "error"), LOCKED)
def test_what_may_not_be_read(unprivileged, places, name, command, error):
    lock(places / name)
    code, out, err = unprivileged(command)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"{error}: ")
    assert "Permission denied" in err
    assert "let this user read it" in err
    assert name.rpartition("/")[2] in err
    assert not (places / "out").exists()


@pytest.mark.parametrize(("name", "command"), [
    ("checkpoint", "export checkpoint -o out --no-check"), ("corpora", "memory build bundle --corpus corpora -o out"),
])
def test_a_folder_that_is_read_and_may_not_be_entered_is_no_fault_of_the_output(unprivileged, places, name, command):
    lock(places / name)
    code, out, err = unprivileged(command)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert f"/{name}/" in err
    assert "Permission denied; see to its permissions" in err
    assert not (places / "out").exists()


@pytest.mark.parametrize("command", [
    "cost --model small --plot closed/x.svg", "quantize bundle -o closed/q", "init --random small -o closed/i",
    "memory build bundle --corpus corpus.jsonl -o closed/s", f"answer bundle {ASKED} --predictions closed/p.jsonl",
    f"parity bundle --reference other {ASKED} --html closed/p.html",
])
def test_a_folder_that_may_not_be_written(unprivileged, places, command):
    (places / "closed").mkdir(mode=0o555)
    code, out, err = unprivileged(command)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("OutputError: output ")
    assert err.endswith("; write elsewhere\n")
    assert list((places / "closed").iterdir()) == []
