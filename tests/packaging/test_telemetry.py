"""Nothing reports home: what the system is asked for while commands run, and what they leave in the user's home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.runtime.telemetry import SWITCHES
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.t5_factory import make_t5, save_t5

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ROOT = GOLDEN.parents[1]
MAIN = "from glimmer_export.exporter.cli import main; main()"
STRACE = shutil.which("strace")
COMMANDS = {
    "ask": ["ask", "BUNDLE", "w1 w2", "--store", "STORE"],
    "ask by openvino": ["ask", "BUNDLE", "w1 w2", "--store", "STORE", "--backend", "openvino"],
    "answer": ["answer", "BUNDLE", "--store", "STORE", "--questions", "QUESTIONS", "--predictions", "written"],
    "memory build": ["memory", "build", "BUNDLE", "--corpus", "CORPUS", "-o", "written"],
    "quantize": ["quantize", "BUNDLE", "-o", "written"],
    "parity": ["parity", "BUNDLE", "--reference", "BUNDLE", "--store", "STORE", "--questions", "QUESTIONS"],
    "convert": ["convert", "--from", "huggingface", "T5", "--tokenizer", "TOKENIZER", "-o", "written"],
    "export": ["export", "CHECKPOINT", "-o", "written"],
}
SLOW = ("answer", "quantize", "parity", "export")
"""`convert` brings in torch and transformers as `export` does, in a tenth of the time."""
OURS = tuple(
    f"glimmer_export.{name}"
    for name in ("runtime", "calibration.collect", "exporter.graphs.check", "exporter.memory.runners.ray_driver")
)


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]
)
def test_no_command_speaks_to_anyone_or_writes_into_the_home(tmp_path, name):
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    places = {
        "BUNDLE": shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle"), "STORE": GOLDEN / "store-fp16",
        "CHECKPOINT": GOLDEN / "checkpoint", "CORPUS": write_rows(tmp_path / "corpus.jsonl", CORPUS[:3]),
        "T5": save_t5(make_t5("v1.1"), tmp_path / "t5"), "TOKENIZER": GOLDEN / "checkpoint" / "tokenizer.json",
        "QUESTIONS": write_rows(tmp_path / "q.jsonl", [{"question": text, "answers": ["w1"]} for text in QUESTIONS]),
    }  # fmt: skip
    unset = {*SWITCHES, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    command = [sys.executable, "-c", MAIN, *(str(places.get(word, word)) for word in COMMANDS[name])]
    done = subprocess.run(
        [str(STRACE), "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,connect,sendto,openat", "-o", trace, *command],
        env={**environment, "HOME": str(home), "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    assert any("/site-packages/" in call for call in calls), "nothing was traced"
    assert [call for call in calls if "AF_INET" in call or "/etc/resolv.conf" in call] == []
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("chosen", [None, "theirs"])
def test_the_switches_are_set_before_any_library_is_there_and_only_where_the_user_has_not(chosen):
    script = f"import importlib, json, os, sys\nfor name in {OURS}: importlib.import_module(name)\n"
    script += f"print(json.dumps([{{key: os.environ.get(key) for key in {[*SWITCHES]}}}, sorted(sys.modules)]))"
    environment = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    environment |= {} if chosen is None else dict.fromkeys(SWITCHES, chosen)
    printed = subprocess.check_output([sys.executable, "-c", script], env=environment, cwd=ROOT)
    switches, modules = json.loads(printed)
    assert switches == (SWITCHES if chosen is None else dict.fromkeys(SWITCHES, chosen))
    assert not {"onnxruntime", "ray", "huggingface_hub"} & {*modules}


@pytest.mark.parametrize("home", [None, "/proc/none"])
def test_a_home_that_is_not_there_is_not_missed(home):
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    environment |= {"PYTHONPATH": str(ROOT)} if home is None else {"PYTHONPATH": str(ROOT), "HOME": home}
    words = ["ask", str(GOLDEN / "bundle"), "w1", "--store", str(GOLDEN / "store-fp16"), "--json"]
    done = subprocess.run([sys.executable, "-c", MAIN, *words], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["question"] == "w1"
