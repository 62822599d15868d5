"""The groups of speed.md, what is measured again, and the page with its bars."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from glimmer_export.exporter.bench import BenchOptions, bars, speed
from glimmer_export.exporter.bench.bars import BARS, page_from_runs
from glimmer_export.exporter.bench.gated import ROWS, gated_contenders
from glimmer_export.exporter.bench.load import Load
from glimmer_export.exporter.bench.roster import parse_peers
from glimmer_export.exporter.bench.speed import GROUPS, measure_groups, options_of
from glimmer_export.runtime.contract import OutputError


def quiet(report):
    """The JSON of a bench as if the machine had been quiet."""
    bench = json.loads(json.dumps(report.to_json()))
    load = Load(False, (), 0.1, report.load.spans).to_json()
    return {**bench, "load": load}


@pytest.fixture
def run(bench_report):
    """Every group of a tiny bench, its contenders those of the group: times as the bars' own, so that each is known."""
    bench = quiet(bench_report)
    groups = {}
    for group in GROUPS:
        one = copy.deepcopy(bench)
        peers = {peer.key: peer for peer in parse_peers(group.peers)}
        shown = {
            key: {
                **copy.deepcopy(bench["peers"]["int8"]), "form": peer.form, "engine": peer.engine,
                "precision": peer.precision, "passages": peer.num_passages or 25,
                "stages": copy.deepcopy(bench["stages"]) if peer.is_ours else None,
            }
            for key, peer in peers.items()
        }
        if group.with_bundles:
            shown["before_int8"] = {**copy.deepcopy(shown["int8"]), "form": "before-int8"}
        groups[group.name] = {**one, "peers": shown, "ratios": dict.fromkeys(shown, 2.0)}
    return groups


GATED = ("ours", *ROWS)


def figures(run, gated=GATED):
    return {bar.what: bar.figure(run, gated) for bar in BARS}


def test_every_group_names_contenders_and_the_bars_are_among_them(run):
    assert all(value is not None for value in figures(run).values())
    assert {*ROWS} <= {key for bench in run.values() for key in bench["peers"]}
    assert [group.name for group in GROUPS if group.whole] == ["default"]


def test_bars_are_of_medians_in_the_same_group(run):
    run["default"]["end_to_end"]["median_ms"] = 100.0
    run["default"]["peers"]["paper_form"]["median_ms"] = 170.0
    run["int8"]["peers"]["int8"]["median_ms"] = 50.0
    run["int8"]["peers"]["optimum_fid_k5_int8"]["median_ms"] = 90.0
    best = run["best"]
    best["end_to_end"]["median_ms"] = 80.0
    for key, times in best["peers"].items():
        times["median_ms"] = {"int8": 40.0, "before_int8": 100.0, "optimum_fid_k5_int8": 70.0}.get(key, 500.0)
    found = figures(run)
    assert found["the paper's form over ours, ORT FP32"] == pytest.approx(1.7)
    assert found["FiD k=5 over ours, ORT INT8"] == pytest.approx(1.8)
    assert found["the best FiD k=5 of any engine over ours in the best gated precision"] == pytest.approx(70 / 40)
    assert found["INT8 of commit dd04a57 over ours in the best gated precision"] == pytest.approx(2.5)
    rows = {bar.what: bar.row(run, GATED) for bar in BARS}
    assert rows["the paper's form over ours, ORT FP32"].endswith("| at least 1.6x | 1.7x | held |")
    assert rows["FiD k=5 over ours, ORT INT8"].endswith("| at least 1.9x | 1.8x | **missed** |")


def test_bars_of_stages(run):
    ranking = run["ranking"]
    for name, value in {"live_stage_a": 10.0, "tokenize": 1.0, "question_encoder": 6.0, "fetch": 3.0}.items():
        ranking["stages"][name]["median_ms"] = value
    ranking["peers"]["cross_encoder"]["median_ms"] = 900.0
    for bench in run.values():
        for stages in (bench["stages"], *(peer["stages"] or {} for peer in bench["peers"].values())):
            stages.get("decoder_step", {})["median_ms"] = 300.0
            stages.get("decode_loop", {})["median_ms"] = 2.0
    run["best"]["peers"]["int8"]["stages"]["decoder_step"]["median_ms"] = 150.0
    found = figures(run)
    assert found["the cross-encoder over stage A alone, ORT FP32"] == pytest.approx(90)
    assert found["the cross-encoder over question, fetch and stage A, ORT FP32"] == pytest.approx(45)
    assert found["decoding 8 tokens in the fastest gated precision"] == pytest.approx(152)


def test_what_was_not_measured_holds_nothing(run):
    del run["best"], run["openvino"]["peers"]["openvino_bf16"], run["ranking"]["peers"]["cross_encoder_int8"]
    rows = [bar.row(run, GATED) for bar in BARS]
    missing = [row for row in rows if row.endswith("| | not measured |")]
    assert len(missing) == 3 + 2 + 2  # OpenVINO's, the best's, and two of the cross-encoder
    assert page_from_runs([run], GATED, []).count("not measured") == len(missing)


def test_the_page_is_written_from_quiet_runs_alone(run, tmp_path, capsys):
    file, page = tmp_path / "speed.json", tmp_path / "speed.md"
    rows = {name: {"gate": {"passed": True}} for name in ("int8 cpu", "fp32 openvino")}
    (tmp_path / "fidelity.json").write_text(json.dumps({"demo": rows, "hard": rows}))
    (tmp_path / "drafts.json").write_text(json.dumps({"replays": []}))
    given = [str(file), "--page", str(page), "--fidelity", str(tmp_path / "fidelity.json")]
    given += ["--drafts", str(tmp_path / "drafts.json")]
    file.write_text(json.dumps({"groups": run}))
    assert bars.main(given) == 0
    text = page.read_text(encoding="utf-8")
    assert bars.main([*given, "--check"]) == 0
    assert "those that passed the gate on both worlds of [fidelity.md](fidelity.md), ours, int8, openvino." in text
    for bench in run.values():
        assert f"$ {bench['command']}" in text
    tables = [line for line in text.splitlines() if " engine | precision |" in line or line.startswith("| stages, ms")]
    cpu = run["default"]["machine"]["cpu"]
    assert len(tables) == 2 * len(run)
    assert all(cpu in line for line in tables)
    run["ranking"]["load"].update(worthless=True, reasons=["steal"])
    file.write_text(json.dumps({"groups": run}))
    assert bars.main(given) == 2
    assert "found steal" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text
    page.write_text("else")
    run["ranking"]["load"]["worthless"] = False
    file.write_text(json.dumps({"groups": run}))
    assert bars.main([*given, "--check"]) == 1


def test_the_best_of_ours_has_passed_the_gate(run):
    best = run["best"]["peers"]
    known = {"auto_int8": 10.0, "openvino_bf16": 20.0, "int8": 40.0, "optimum_fid_k5_int8": 80.0}
    for key, times in best.items():
        times["median_ms"] = known.get(key, 500.0)
    run["best"]["end_to_end"]["median_ms"] = 500.0
    what = "the best FiD k=5 of any engine over ours in the best gated precision"
    assert figures(run)[what] == pytest.approx(8)
    assert figures(run, ["ours", "int8", "openvino_bf16"])[what] == pytest.approx(4)
    assert figures(run, ["ours", "int8"])[what] == pytest.approx(2)


def test_a_contender_is_gated_whose_rows_all_passed_on_both_worlds(tmp_path):
    passed, failed = {"gate": {"passed": True}}, {"gate": {"passed": False}}
    rows = {"int8 cpu": passed, "int8 openvino": passed, "bf16 openvino": passed, "fp32 openvino": {"gate": None}}
    file = tmp_path / "fidelity.json"
    file.write_text(json.dumps({"demo": rows, "hard": {**rows, "bf16 openvino": failed}}))
    assert gated_contenders(file) == ("ours", "int8", "openvino_int8", "auto_int8")
    file.write_text(json.dumps({"demo": rows, "hard": {**rows, "int8 openvino": failed}}))
    assert gated_contenders(file) == ("ours", "int8", "openvino_bf16")
    file.write_text(json.dumps({"demo": rows}))
    with pytest.raises(OutputError, match="expected rows of the worlds demo and hard"):
        gated_contenders(file)


def test_drafts_have_bars_of_their_own(tmp_path):
    bundles = {"ours": {"ratio": 1.5}, "int8": {"ratio": 1.3}}
    one = {"source": "gold answers", "batch_size": 1, "bundles": bundles}
    file = tmp_path / "drafts.json"
    file.write_text(json.dumps({"replays": [one, {**one, "batch_size": 4}]}))
    rows = [bar.row({}, []) for bar in bars.draft_bars(bars.read_replays(file))]
    assert rows == [
        "| plain decoding over drafts, FP32, gold answers | at least 1.4x | 1.5x | held |",
        "| plain decoding over drafts, INT8, gold answers | at least 1.4x | 1.3x | **missed** |",
    ]
    file.write_text(json.dumps({"replays": [{}]}))
    with pytest.raises(OutputError, match="expected replays of drafts"):
        bars.read_replays(file)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"groups": {}}', '{"groups": {"other": {"load": {}}}}'])
def test_what_is_no_run_is_named(tmp_path, capsys, content):
    (tmp_path / "speed.json").write_text(content)
    assert bars.main([str(tmp_path / "speed.json"), "--page", str(tmp_path / "speed.md")]) == 2
    assert capsys.readouterr().err.startswith("OutputError: ")
    assert not (tmp_path / "speed.md").exists()


def test_what_is_measured_on_a_quiet_machine_stays(run, monkeypatch, tmp_path):
    measured = []

    def bench(options):
        measured.append(options.peers)
        return {**run["int8"], "command": options.command, "load": {"worthless": "int8" in options.peers}}

    monkeypatch.setattr(speed, "_in_a_process", bench)
    given = BenchOptions(random="base", threads=1)
    benches = {group.name: options_of(group, given, tmp_path / "work", without=["openvino"]) for group in GROUPS[1:3]}
    output = tmp_path / "speed.json"
    assert measure_groups(benches, output) == ["int8"]
    assert list(json.loads(output.read_text())["groups"]) == ["int8", "openvino"]
    assert "openvino" not in measured[1]
    assert "openvino-bf16" in measured[1]
    assert measure_groups(benches, output) == ["int8"]
    assert len(measured) == 3  # what was worthless, once more
    other = options_of(GROUPS[2], given, tmp_path / "work")
    measure_groups({"openvino": other}, output)
    assert measured[-1] == other.peers  # another command's is no answer to this one
    with pytest.raises(OutputError):
        measure_groups(benches, tmp_path)


def test_what_is_given_to_a_group(tmp_path):
    bundle = ("before-int8", Path("there"))
    given = BenchOptions(random="base", repeats=2)
    options = {group.name: options_of(group, given, tmp_path, bundles=[bundle]) for group in GROUPS}
    assert {name for name, one in options.items() if one.bundles} == {"best"}
    assert {name for name, one in options.items() if one.peak_rss or one.store} == {"default"}
    assert (options["large"].random, options["large"].work) == ("large", tmp_path / "large")
    assert {one.repeats for one in options.values()} == {2}
    for one in options.values():
        one.check()


def test_the_command(capsys, tmp_path):
    assert speed.main(["--work", str(tmp_path)]) == 2
    assert "OptionError: --output: expected a file" in capsys.readouterr().err
    assert speed.main(["--work", str(tmp_path), "--bundle", "Before=x"]) == 2
    assert "--bundle: expected NAME=DIR" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        speed.main(["--work", str(tmp_path), "--group", "none"])
