"""`glimmer-export cost`."""

from __future__ import annotations

import pytest

from glimmer_export.runtime.contract import BundleError, CheckpointError, OptionError, OutputError

XXL = ("cost", "--model", "xxl", "--architecture", "glimmer", "--top-k", 25, "--top-m", 5, "--answer-tokens", 16)
ABSORBED = (*XXL, "--cross-attention", "absorbed")


def test_json(cli):
    report = cli(*ABSORBED, "--target", "t4", "--json").json
    assert set(report["papers"]) == {"fid", "memory_fid", "lumen", "glimmer"}
    assert report["ours"]["macs"] == sum(stage["macs"] for stage in report["ours"]["stages"].values())
    assert report["ratio_to_paper"] == pytest.approx(report["papers"]["glimmer"]["macs"] / report["ours"]["macs"])
    assert report["ratio_to_paper"] >= 1.45
    rates = report["samples_per_tflop"]
    assert rates["fid"] == pytest.approx(1e12 / report["papers"]["fid"]["macs"])
    assert rates["ours"] == pytest.approx(1e12 / report["ours"]["macs"])
    assert {"lumen", "glimmer"} < set(rates)
    floors = report["target"]["floors"]
    assert floors["fp16"]["stages"]["decoder_step"]["binds"] == "bandwidth"
    assert floors["fp16"]["ms"] == pytest.approx(sum(stage["ms"] for stage in floors["fp16"]["stages"].values()))
    assert "datasheet" in report["target"]["source"]
    assert report["store"]["codecs"]["fp16"]["bytes"] == 10**6 * report["store"]["codecs"]["fp16"]["bytes_per_passage"]
    assert report["precomputation"]["macs"] == 10**6 * report["precomputation"]["macs_per_passage"]
    assert "counted" not in report


def test_the_form_is_the_one_that_the_machine_would_be_given(cli):
    """A T4 waits for kernels and memory, so that an answer of 16 tokens is worth projecting keys and values for."""
    assert "cross_kv" not in cli(*XXL, "--json").json["ours"]["stages"]
    assert "cross_kv" in cli(*XXL, "--target", "t4", "--json").json["ours"]["stages"]


def test_the_ratios_of_figure_2_from_three_runs(cli):
    figure = {("fid", 5): 0.0927, ("lumen", 10): 0.1068, ("glimmer", 25): 0.1279}
    shares = []
    for (name, k), value in figure.items():
        report = cli("cost", "--model", "xxl", "--architecture", name, "--top-k", k, "--json").json
        shares.append(report["samples_per_tflop"][name] / value)
    assert max(shares) / min(shares) < 1.03


def test_tables(cli):
    shown = cli(*ABSORBED, "--target", "jetson-orin-nano", "--passages", 1000).out
    for text in ("ours does 1.49 times less", "live_stage_a", "decoder_step", "1,000 passages", "pq16x",
                 "bandwidth", "arithmetic", "A fit, not the paper's word", "glimmer/fid -1.2%"):  # fmt: skip
        assert text in shown


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra", "lumen", "memory_fid", "fid"])
def test_with_a_bundle(cli, exported, variant):
    bundle = exported(variant).bundle
    report = cli("cost", "--bundle", bundle, "--answer-tokens", 5, "--json").json
    assert report["counted"]["macs"] == pytest.approx(report["ours"]["macs"], rel=0.02)
    assert abs(report["counted"]["relative_difference"]) < 0.02
    assert list(report["counted"]["stages"]) == list(report["ours"]["stages"])
    assert "counted in the graphs" in cli("cost", "--bundle", bundle, "--answer-tokens", 5).out


def test_a_plot(cli, tmp_path):
    done = cli(*XXL, "--plot", tmp_path / "cost.svg")
    assert "Wrote" in done.out
    assert (tmp_path / "cost.svg").is_file()
    assert cli(*XXL, "--plot", tmp_path / "cost.png", "--json").json["plot"] == str(tmp_path / "cost.png")


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, ("--top-k", 2, "--top-m", 5), "option --top-m: expected at most the k = 2"),
        (OptionError, ("--top-k", 0), "option --top-k: expected 1 to 3840, found 0"),
        (OptionError, ("--top-m", 0), "option --top-m"),
        (OptionError, ("--question-tokens", 0), "option --question-tokens"),
        (OptionError, ("--passage-tokens", -1), "option --passage-tokens"),
        (OptionError, ("--answer-tokens", 0), "option --answer-tokens"),
        (OptionError, ("--passages", 0), "option --passages"),
        (OptionError, ("--target", "tpu"), "or a YAML file, found none of that name"),
        (OptionError, ("--model", "huge"), "one of base, large, small, xl, xxl"),
        (OptionError, ("--live-proportion", "2"), "option --live-proportion"),
        (CheckpointError, ("--live-proportion", "1"), "at least one layer in its memory encoder"),
        (OptionError, ("--score-pooling", "mean", "--stage-a", "lazy"), "--stage-a"),
        (OptionError, ("--plot", "cost.pdf"), ".png or .svg"),
    ],
)
def test_refused(refused, error, options, message):
    assert message in refused(error, "cost", "--model", "xxl", *options)


def test_bundles_that_are_refused(refused, glimmer, exported, tmp_path):
    assert "nowhere: expected a bundle, found nothing" in refused(BundleError, "cost", "--bundle", tmp_path / "nowhere")
    refused(BundleError, "cost", "--bundle", glimmer.checkpoint)
    bundle = ("cost", "--bundle", glimmer.bundle)
    assert "full, as the bundle has it" in refused(OptionError, *bundle, "--stage-a", "lazy")
    assert "cached, as the bundle has it" in refused(OptionError, *bundle, "--cross-attention", "absorbed")
    assert "glimmer, as the bundle has it" in refused(OptionError, *bundle, "--architecture", "fid")
    assert "the bundle has its own" in refused(OptionError, *bundle, "--live-proportion", "1/3")
    assert "vocab_size" in refused(OptionError, *bundle, "--model", "base")
    prefixed = ("cost", "--bundle", exported("memory_fid").bundle)
    assert "at most the bundle's 6" in refused(OptionError, *prefixed, "--answer-tokens", 7)
    assert "--model SIZE or --bundle BUNDLE" in refused(OptionError, "cost")


def test_a_plot_is_not_replaced_unless_told(refused, cli, tmp_path):
    (tmp_path / "cost.svg").write_text("mine", encoding="utf-8")
    assert "--overwrite" in refused(OutputError, *XXL, "--plot", tmp_path / "cost.svg")
    assert cli(*XXL, "--plot", tmp_path / "cost.svg", "--overwrite").code == 0
