"""The names of peers, and what is missing for them."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.bench import packages
from glimmer_export.exporter.bench.options import bundle_peers
from glimmer_export.exporter.bench.packages import require_engines
from glimmer_export.exporter.bench.roster import RUNS, STEMS, Peer, parse_peers
from glimmer_export.runtime.contract import MissingExtraError, OptionError


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("int8", ("ours", "onnxruntime", "int8", None)),
        ("openvino", ("ours", "openvino", "fp32", None)),
        ("auto-int8", ("ours", "auto", "int8", None)),
        ("paper-form", ("paper-form", "onnxruntime", "fp32", None)),
        ("paper-form-openvino-bf16", ("paper-form", "openvino", "bf16", None)),
        ("rerank-layers-2-int8", ("rerank-layers", "onnxruntime", "int8", 2)),
        ("hf-fid-k25-bf16", ("hf-fid", "torch", "bf16", 25)),
        ("optimum-fid-k5-openvino", ("optimum-fid", "openvino", "fp32", 5)),
        ("llm-k5", ("llm", "ctranslate2", "int8", 5)),
        ("llm-kv-k5", ("llm-kv", "ctranslate2", "int8", 5)),
        ("cross-encoder-int8", ("cross-encoder", "onnxruntime", "int8", None)),
    ],
)
def test_a_name_is_a_form_an_engine_and_a_precision(name, peer):
    assert parse_peers([name]) == (Peer(name, *peer),)
    assert parse_peers([name])[0].key == name.replace("-", "_")


def test_every_form_has_one_name_for_each_of_its_runs():
    assert set(STEMS) == set(RUNS)
    for form, runs in RUNS.items():
        stem = STEMS[form].partition("(")[0].lstrip("-") + ("3" if "(" in STEMS[form] else "")
        names = {
            "-".join(filter(None, (stem, engine if engine in ("openvino", "auto") else "", precision)))
            for engine, precision in runs
        }
        names = {name.removesuffix("-fp32") for name in names if name != "fp32"}
        found = [peer for name in sorted(names) for peer in parse_peers([name])]
        assert {peer.form for peer in found} == {form}
        # Ours in FP32 in ONNX Runtime is no peer, and the language model's one precision is not in its name.
        assert {(peer.engine, peer.precision) for peer in found} >= {run for run in runs if run != runs[0]}


@pytest.mark.parametrize(
    "name", ["", "ours", "bf16", "fp32", "hf-fid", "hf-fid-k0", "hf-fid-k5-int8", "hf-fid-k5-openvino",
             "rerank-layers-0", "cross-encoder-k5", "llm-k5-bf16", "optimum-fid-k5-bf16", "int8-int8"],
)  # fmt: skip
def test_a_name_of_no_peer(name):
    with pytest.raises(OptionError, match=f"--peers: expected int8, openvino or auto, .* found '{name}'"):
        parse_peers([name])


@pytest.mark.parametrize("text", ["before", "=here", "before=", "Before=here", "-=here"])
def test_a_bundle_has_a_name_and_a_place(text):
    with pytest.raises(OptionError, match=r"--bundle: expected NAME=DIR"):
        bundle_peers([text])
    assert [(name, str(path)) for name, path in bundle_peers(["before=a=b"])] == [("before", "a=b")]


@pytest.mark.parametrize(
    ("name", "absent", "fix"),
    [
        ("openvino-bf16", "openvino", "openvino"),
        ("auto", "openvino", "openvino"),
        ("cross-encoder-openvino", "openvino", "leave the peer out"),
        ("llm-k5", "ctranslate2", r"pip install 'glimmer-export\[peers\]'"),
        ("hf-fid-k5", "transformers", r"pip install 'glimmer-export\[export\]'"),
        ("optimum-fid-k5-int8", "optimum", "PYTHONPATH=.venv/optimum, and then without both with the same --work"),
    ],
)
def test_a_missing_package_is_named_with_its_fix(monkeypatch, tmp_path, name, absent, fix):
    monkeypatch.setattr(packages, "find_spec", lambda package: None if package.startswith(absent) else package)
    with pytest.raises(MissingExtraError, match=f"--peers {name}: expected the package {absent}, found none; .*{fix}"):
        require_engines(parse_peers([name]), tmp_path)
    require_engines(parse_peers(["int8", "paper-form"]), tmp_path)


def test_what_optimum_exported_needs_no_optimum(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "find_spec", lambda package: None)
    (tmp_path / "optimum").mkdir()
    require_engines(parse_peers(["optimum-fid-k5", "optimum-fid-k25-int8"]), tmp_path)
