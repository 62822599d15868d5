"""How much memory a build takes, on a corpus as large as one may be read in a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bundle_factory import WORDS, make_bundle

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1.5e9
"""Bytes resident, above the model."""

BUILD = """
import json, sys
from pathlib import Path
from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.build import memory_encoder
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.passage_memory import encode_passages

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

bundle = Bundle.open(sys.argv[1])
encode_passages(memory_encoder(bundle, OnnxRuntimeBackend(1)), [bundle.text.passage("", "one passage")[0]])
model = status("VmRSS:")
summary = build_store(*sys.argv[1:], codec="int8", threads=1)
print(json.dumps({"model": model, "peak": status("VmHWM:"), "passages": summary.passages, "seconds": summary.seconds}))
"""


def write_generated(path: Path, num_passages: int, words: list[str]) -> Path:
    """Passages of 60 to 100 words, the same ones every time."""
    generator = np.random.default_rng(7)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(num_passages):
            drawn = generator.integers(0, len(words), int(generator.integers(60, 101)))
            row = {"id": number, "title": f"Title {number}", "text": " ".join(words[index] for index in drawn)}
            stream.write(json.dumps(row) + "\n")
    return path


@pytest.mark.slow
def test_200_000_passages_are_built_in_bounded_memory(tmp_path, record_property):
    bundle = make_bundle(tmp_path / "bundle", passage_length=128, codecs=("int8",))
    corpus = write_generated(tmp_path / "corpus.jsonl", 200_000, WORDS)
    command = [sys.executable, "-c", BUILD, str(bundle), str(corpus), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, value in found.items():
        record_property(name, value)
    assert found["passages"] == 200_000
    assert found["peak"] - found["model"] < BOUND
