"""A bench of a tiny model: who answers what, and what the report holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from glimmer_export.exporter.bench import BenchOptions, run_bench, workplace
from glimmer_export.exporter.bench.contenders import measure_peak_rss, open_contenders
from glimmer_export.exporter.bench.peers import write_t5
from glimmer_export.exporter.bench.workplace import OURS, prepare
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.runtime.contract import CODECS, OptionError, OutputError, codec_layout, file_digest
from tests.bench.conftest import small_ceilings
from tests.bench_work import PEERS

GRAPHS = ["question_encoder", "live_stage_a", "live_stage_b", "decoder_step"]
HOST = ["tokenize", "retrieve", "fetch", "select", "decode_loop", "other"]


def test_the_keys_that_json_promises(bench_report):
    found = bench_report.to_json()
    peers = [name.replace("-", "_") for name in PEERS]
    assert list(found["ratios"]) == list(found["peers"]) == peers
    assert sorted(found["stages"]) == sorted(GRAPHS + HOST)
    for stage in found["stages"].values():
        assert {"median_ms", "p95_ms", "ceiling_share", "share", "kind"} <= set(stage)
    assert {
        "median_ms", "min_ms", "p95_ms", "cold_ms", "questions_per_second", "peak_rss_bytes", "times_ms",
        "block_sizes", "first_ms",
    } <= set(found["end_to_end"])
    assert {"worthless", "reasons", "load_average", "foreign_share", "steal_share", "spans"} == set(found["load"])
    assert set(found["ceilings"]) == {"fp32_macs_per_second", "int8_macs_per_second", "copy_bytes_per_second"}
    assert min(found["ceilings"].values()) > 0
    assert 0 < found["overhead_share"] < 1
    assert {"cpu", "cpu_numbers", "instructions", "cpus", "memory_bytes", "load_average"} <= set(found["machine"])
    assert {"python", "numpy", "onnxruntime", "torch"} <= set(found["versions"])
    assert found["command"].startswith("glimmer-export bench --checkpoint ")
    assert found["date"]


def test_the_store_is_read_in_every_codec(bench_report):
    found = bench_report.to_json()["fetch"]
    assert list(found) == list(CODECS)
    sizes = [times["bytes_per_token"] for times in found.values()]
    assert (max(sizes), min(sizes)) == (sizes[0], sizes[-1])
    for codec, times in found.items():
        layout = codec_layout(codec, bench_report.model["d_model"])
        assert times["bytes_per_token"] == pytest.approx(layout.bytes_per_token, rel=0.05)
        assert times["to_copy"] == pytest.approx(times["fetch_ms"] / times["copy_ms"])
        assert times["threads_to_copy"] == pytest.approx(times["threads_ms"] / times["threads_copy_ms"])
        assert min(times.values()) > 0


def test_ratios_medians_and_rates_are_those_of_the_raw_times(bench_report):
    found = bench_report.to_json()
    ours = median(found["end_to_end"]["times_ms"])
    for name, times in {"ours": found["end_to_end"], **found["peers"]}.items():
        assert times["block_sizes"] == (1, 1, 1)  # blocks of no length count one
        assert len(times["times_ms"]) == len(times["first_ms"]) == 3
        assert times["cold_ms"] == times["first_ms"][0]
        assert times["min_ms"] == min(times["times_ms"])
        assert times["median_ms"] == median(times["times_ms"])
        assert times["questions_per_second"] == pytest.approx(1e3 / times["median_ms"])
        assert min(times["times_ms"]) <= times["median_ms"] <= times["p95_ms"] <= max(times["times_ms"])
        if name != "ours":
            assert found["ratios"][name] == pytest.approx(times["median_ms"] / ours)


def test_each_is_watched_for_what_else_the_machine_does(bench_report):
    spans = bench_report.load.spans
    names = ["ours", *bench_report.peers, "fetching", "the ceilings", "the memory encoder", "live_stage_a alone"]
    assert sorted(spans) == sorted(names)
    # Of this machine, which may be busy: each has at least the time that it says itself.
    for name, times in {"ours": bench_report.end_to_end, **bench_report.peers}.items():
        assert 1e3 * spans[name].seconds >= sum(times.times_ms) + sum(times.first_ms)
        assert spans[name].own_seconds > 0


def test_stages_say_which_ceiling_and_how_much_of_it(bench_report):
    stages = bench_report.stages
    rates = bench_report.ceilings
    assert {name: stages[name].bound for name in GRAPHS} == {
        "question_encoder": "arithmetic", "live_stage_a": "memory", "live_stage_b": "arithmetic",
        "decoder_step": "memory",
    }
    second_b = stages["live_stage_b"]
    assert second_b.ceiling_share == pytest.approx(
        second_b.macs / rates.fp32_macs_per_second / (second_b.median_ms / 1e3)
    )
    first = stages["live_stage_a"]
    assert first.memory_bytes == 5 * 20 * 32 * 2
    assert first.alone_to_copy == pytest.approx(
        first.alone_ms / 1e3 * rates.copy_bytes_per_second / first.memory_bytes
    )
    assert all(stages[name].kind == "host" and stages[name].ceiling_share is None for name in HOST)
    deeper = bench_report.peers["rerank_layers_2"].stages
    assert deeper["live_stage_a"].bound == "arithmetic"  # its first layer is computed in full
    paper_form = bench_report.peers["paper_form"].stages
    assert set(paper_form) == {*GRAPHS, *HOST, "cross_kv"}
    assert {paper_form[name].bound for name in ("live_stage_a", "cross_kv")} == {"arithmetic"}


def test_each_says_which_form_in_which_engine_and_precision(bench_report):
    found = bench_report.to_json()
    runs = {key: (one["form"], one["engine"], one["precision"]) for key, one in found["peers"].items()}
    assert runs["rerank_layers_2"] == ("rerank-layers", "onnxruntime", "fp32")
    assert runs["int8"] == ("ours", "onnxruntime", "int8")
    assert runs["hf_fid_k2_bf16"] == ("hf-fid", "torch", "bf16")
    assert {engine for _, engine, _ in runs.values()} <= set(found["versions"])
    assert found["peers"]["hf_fid_k2"]["attention"] in ("sdpa", "eager")
    assert found["end_to_end"]["attention"] is None
    assert found["end_to_end"]["stored_bytes_per_token"] == 2 * found["model"]["d_model"]
    assert found["peers"]["hf_fid_k2"]["stored_bytes_per_token"] is None


def test_a_bundle_by_its_path_answers_beside_ours(bench_options, bench_report):
    """Such as an older release's."""
    other = bench_options.work / "bundle-lazy-absorbed-int8"
    options = replace(bench_options, peers=(), bundles=(("before-int8", other),), store=False)
    report = run_bench(options, ceilings=small_ceilings())
    before = report.peers["before_int8"]
    assert (before.form, before.engine, before.precision) == ("before-int8", "onnxruntime", "int8")
    assert before.tokens_equal is not None
    assert before.stages
    assert report.fetch == {}
    assert report.end_to_end.memory_encoder_ms is None
    assert replace(options, threads=1).command.endswith(f"--peers none --bundle before-int8={other}")


def test_both_forms_give_the_same_answers(bench_report, batch_report):
    assert bench_report.peers["paper_form"].tokens_equal == 1
    assert batch_report.peers["paper_form"].tokens_equal == 1
    assert batch_report.end_to_end.questions_per_second == pytest.approx(3e3 / batch_report.end_to_end.median_ms)


def test_every_contender_decodes_just_so_many_tokens(bench_options):
    prepared = prepare(bench_options, bench_options.work)
    assert len({question.text for batch in prepared.batches for question in batch}) == len(prepared.batches) > 2
    contenders = open_contenders(prepared.specs)
    batch = prepared.batches[0] + prepared.batches[1]
    answers = {name: contender.answer(batch).tokens for name, contender in contenders.items()}
    assert list(answers) == [OURS, *(name.replace("-", "_") for name in PEERS)]
    assert {len(tokens) for rows in answers.values() for tokens in rows} == {3}
    assert answers[OURS] == answers["paper_form"]
    assert answers["hf_fid_k2"] == answers.get("optimum_fid_k2", answers["hf_fid_k2"])
    assert answers["hf_fid_k2"] != answers["hf_fid_k5"]
    assert answers[OURS][0] != answers[OURS][1]
    # The same weights and the same passages, but those read may be others where two layers rank.
    assert answers["rerank_layers_2"] != answers["hf_fid_k2"]
    one_by_one = [row for question in batch for row in contenders["hf_fid_k5"].answer([question]).tokens]
    assert answers["hf_fid_k5"] == one_by_one


def test_eos_stops_nobody(bench_options, bench_report):
    """With EOS as likely as any, some answers hold it and go on."""
    prepared = prepare(bench_options, bench_options.work)
    specs = [replace(spec, answer_tokens=40) for spec in prepared.specs]
    contenders = open_contenders(specs)
    for name in {OURS, "hf_fid_k2", "optimum_fid_k2"} & {*contenders}:
        tokens = contenders[name].answer(prepared.batches[0]).tokens
        assert [len(row) for row in tokens] == [40], name


def test_peak_memory_is_that_of_a_process_of_its_own(bench_options, bench_report):
    prepared = prepare(bench_options, bench_options.work)
    peak = measure_peak_rss(prepared.specs[0], prepared.batches)
    assert 20e6 < peak < 2e9


def test_work_is_kept_and_used_again(bench_options, bench_report):
    work = bench_options.work
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    prepare(replace(bench_options, k=3, m=1, answer_tokens=2, peers=("paper-form", "hf-fid-k5")), work)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == before


def test_a_full_disk_for_a_peers_weights_is_the_systems_word(bench_options, bench_report, tmp_path):
    found = read_checkpoint(bench_options.work / "checkpoint")
    (tmp_path / "model.safetensors").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_t5(found.config, dict(found.tensors), tmp_path)


def test_work_of_another_bench_is_left_alone(bench_options, bench_report, tmp_path):
    with pytest.raises(OutputError, match="name another directory"):
        prepare(replace(bench_options, passage_tokens=10), bench_options.work)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "bench.json").write_text("{")
    with pytest.raises(OutputError, match=r"found a damaged bench\.json"):
        prepare(bench_options, tmp_path / "damaged")
    (tmp_path / "damaged" / "bench.json").unlink()
    (tmp_path / "damaged").rmdir()
    (tmp_path / "file").write_text("")
    digest = file_digest(tmp_path / "file")
    with pytest.raises(OutputError, match=r"found .* in it"):
        prepare(bench_options, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file_digest(tmp_path / "file") == digest
    (tmp_path / "store").symlink_to("nowhere")
    with pytest.raises(OutputError, match=r"store: expected a file or folder of its own.*found a link to nowhere"):
        prepare(bench_options, tmp_path)


@pytest.mark.slow
def test_random_weights_and_a_temporary_directory(monkeypatch, tmp_path):
    tiny = T5Shape(
        vocab_size=60, d_model=16, d_kv=16, d_ff=24, num_layers=6, num_decoder_layers=1, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )
    monkeypatch.setattr(workplace, "preset", lambda name: tiny)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told: list[str] = []
    options = BenchOptions(
        random="base", k=4, m=2, question_tokens=9, passage_tokens=15, answer_tokens=3, threads=1, repeats=2,
        block_seconds=0, peers=(), peak_rss=False,
    )
    report = run_bench(options, lambda what, done, of: told.append(what), ceilings=small_ceilings())
    assert report.model["source"] == "random base"
    assert report.ratios == {}
    assert (report.model["stage_a"], report.model["cross_attention"]) == ("lazy", "absorbed")
    assert "Measuring ours" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 4, "m": 5}, "--top-m: expected at most the 4 passages of --top-k, found 5"),
        ({"m": 0}, "--top-m: expected at least 1"),
        ({"question_tokens": 1}, "--question-tokens: expected at least 2"),
        ({"repeats": 0}, "--repeats: expected at least 1"),
        ({"warmup": 0}, "--warmup: expected at least 1"),
        ({"block_seconds": -1}, "--block-seconds: expected at least 0"),
        ({"peers": ("hf-fid",)}, "--peers: expected int8, openvino, .*, found 'hf-fid'"),
        ({"peers": ("rerank-layers-3",)}, "--peers rerank-layers-3: expected fewer than the 3 live layers"),
        ({"bundles": (("paper-form", Path("x")),)}, "--bundle: expected a name that no other contender has"),
        ({"peers": ("paper-form", "paper-form")}, "each peer once"),
        ({"random": "base"}, "one of --random SIZE and --checkpoint DIR, found both"),
        ({"checkpoint": None}, "found neither"),
        ({"question_tokens": 13}, "--question-tokens: expected at most 12"),
        ({"passage_tokens": 25}, "--passage-tokens: expected at most 24"),
        ({"answer_tokens": 7}, "--answer-tokens: expected at most 6"),
    ],
)
def test_options_that_do_not_fit(bench_options, tmp_path, changes, message):
    with pytest.raises(OptionError, match=message):
        run_bench(replace(bench_options, work=tmp_path / "work", **changes))
    assert not (tmp_path / "work").exists()


def test_the_command_says_all_that_counts(bench_options):
    command = replace(bench_options, checkpoint=Path("a b"), seconds=90.5, seed=3).command
    assert command == (
        "glimmer-export bench --checkpoint 'a b' --top-k 5 --top-m 2 --question-tokens 11 --passage-tokens 20 "
        f"--answer-tokens 3 --threads 1 --batch-size 1 --repeats 3 --warmup 1 --block-seconds 0 "
        f"--seconds 90.5 --peers {','.join(PEERS)} --seed 3"
    )
    assert replace(bench_options, peers=()).command.endswith("--peers none")
