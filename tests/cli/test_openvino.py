"""`memory build`, `parity` and questions on the CPU's other backend, and what of it in BF16 needs a record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.openvino import NATIVE
from glimmer_export.runtime.contract import PARITY_RECORD, BundleError, read_parity_records
from glimmer_export.runtime.cpu_kind import bf16_instructions
from tests.bundle_factory import write_rows
from tests.parity.asked import write_gate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STORE = GOLDEN / "store-fp16"
WORDS = ["w20 w31 w42 w53", "w0 w7", "w3 w9 w27", *(f"w{number} w{number + 3}" for number in range(1, 40, 3))]
GATE = """description: for a few questions, of a model that knows nothing
min_answered: 4
max_em_loss_points: 100
min_answers_equal_of_correct: 0.1
min_top_m_overlap: 0.1
max_gold_in_top_m_loss_points: 100
"""
native = pytest.mark.skipif(bf16_instructions() not in NATIVE, reason="this CPU has no instructions for BF16")


@pytest.fixture
def bundle(tmp_path):
    """One without a record."""
    return Path(shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle", ignore=lambda *_: [PARITY_RECORD]))


@pytest.fixture
def gated(cli, bundle, tmp_path):
    """Runs `parity` of the bundle with itself on ONNX Runtime, with a gate that it passes."""
    with Session.open(bundle, STORE, backend="onnxruntime-cpu") as session:
        answers = session.answer_many(WORDS)
    rows = [
        {"question": each.question, "answers": [each.answer], "gold_ids": [each.passages[each.selected[0]].passage.id]}
        for each in answers if each.answer
    ]
    asked, gate = write_rows(tmp_path / "questions.jsonl", rows), write_gate(tmp_path, GATE)

    def run(*options):
        return cli(
            "parity", bundle, "--reference", bundle, "--store", STORE, "--questions", asked, "--gate", gate, *options
        )

    return run


def keys(bundle):
    records = read_parity_records(bundle).records
    return {(record.backend, record.precision, record.instruction_set) for record in records}


def test_its_record_witnesses_it_and_no_other(bundle, gated):
    done = gated("--backend", "openvino")
    assert done.code == 0, done.err
    assert keys(bundle) == {("openvino", "fp32", None)}
    assert "openvino" in read_parity_records(bundle).records[0].versions
    with Session.open(bundle, STORE, backend="openvino", require_parity="device") as session:
        assert session.computes == {"openvino": "fp32"}
    with pytest.raises(BundleError, match="witnesses onnxruntime-cpu in fp32"):
        Session.open(bundle, STORE, backend="onnxruntime-cpu", require_parity=True)
    # Of the CPU's backends `auto` takes then the one that is witnessed.
    with Session.open(bundle, STORE, require_parity=True) as session:
        assert session.computes == {"openvino": "fp32"}
        assert session.backend_choice.refused["onnxruntime-cpu"] == "no parity record witnesses it"


@native
def test_bf16_is_computed_where_it_was_asked_for_or_is_witnessed(cli, bundle, gated):
    def asked(*options):
        done = cli("ask", bundle, WORDS[0], "--store", STORE, "--backend", "openvino", "--json", *options)
        return done.json["backend"]["compute_precision"] if done.code == 0 else done.err

    assert asked() == "fp32"
    assert asked("--compute-precision", "bf16") == "bf16"
    refused = asked("--compute-precision", "bf16", "--require-parity", "witnessed")
    assert f"expected a file {PARITY_RECORD}" in refused
    done = gated("--backend", "openvino", "--compute-precision", "bf16")
    assert done.code == 0, done.err
    assert keys(bundle) == {("openvino", "bf16", bf16_instructions())}
    assert asked() == asked("--require-parity", "device") == "bf16"
    assert asked("--compute-precision", "fp32") == "fp32"
    # Of other instructions the record says nothing.
    path = bundle / PARITY_RECORD
    path.write_text(path.read_text(encoding="utf-8").replace(f'"{bf16_instructions()}"', '"bf16"'), encoding="utf-8")
    assert asked() == "fp32"


@pytest.mark.parametrize("command", ["ask", "answer", "evaluate", "parity", "memory build"])
def test_a_cpu_that_only_emulates_bf16_refuses_it_by_name(cli, bundle, tmp_path, monkeypatch, command):
    monkeypatch.setattr("glimmer_export.runtime.cpu_kind.cpu_flags", lambda: {"avx512f"})
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": 1, "question": "w1", "answers": ["w1"], "text": "w1"}])
    options = {
        "ask": ["ask", bundle, "w1", "--store", STORE],
        "answer": ["answer", bundle, "--store", STORE, "--questions", rows],
        "evaluate": ["evaluate", bundle, "--store", STORE, "--questions", rows],
        "parity": ["parity", bundle, "--reference", bundle, "--store", STORE, "--questions", rows],
        "memory build": ["memory", "build", bundle, "--corpus", rows, "-o", tmp_path / "store"],
    }[command]
    done = cli(*options, "--backend", "openvino", "--compute-precision", "bf16")
    assert done.code == 2
    assert "backend openvino in bf16: expected a CPU with amx_bf16 or avx512_bf16, found none" in done.err
    assert not (tmp_path / "store").exists()
    done = cli(*options, "--backend", "onnxruntime-cpu", "--compute-precision", "bf16")
    assert (done.code, "an ARM CPU with BF16 instructions" in done.err) == (2, True)


def test_a_store_is_built_with_it(cli, tmp_path):
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"id": n, "text": f"w{n} w{n + 1} w{n + 2}"} for n in range(5)])
    made = {}
    for name, options in {
        "openvino": ["--backend", "openvino"], "plain": [],
        **({"bf16": ["--backend", "openvino", "--compute-precision", "bf16"]} if bf16_instructions() in NATIVE else {}),
    }.items():  # fmt: skip
        done = cli(
            "memory", "build", GOLDEN / "bundle", "--corpus", corpus, "-o", tmp_path / name, "--threads", "1", *options
        )
        assert done.code == 0, done.err
        with Session.open(GOLDEN / "bundle", tmp_path / name, backend="onnxruntime-cpu") as session:
            made[name] = session.store.manifest.precision, session.answer("w1 w2").passages[0].score
    assert made["openvino"][0] == made["plain"][0] == "fp32"
    assert abs(made["openvino"][1] - made["plain"][1]) < 0.01
    if "bf16" in made:
        assert made["bf16"][0] == "bf16"
        done = cli("memory", "append", tmp_path / "bf16", "--bundle", GOLDEN / "bundle", "--corpus", corpus)
        assert done.code == 2
        assert "an append computes in FP32" in done.err
