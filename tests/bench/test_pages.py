"""What is written of a bench: tables, one HTML file, the guide's section."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from glimmer_export.exporter.bench.load import Load
from glimmer_export.exporter.bench.readme import BEGIN, END, TABLE_BEGIN, TABLE_END, main
from glimmer_export.exporter.bench.report import check_html_target, html_from_report, write_html
from glimmer_export.exporter.report.tables import times_faster
from glimmer_export.runtime.contract import OutputError


def test_html_is_well_formed_and_complete_in_itself(bench_report, tmp_path):
    write_html(bench_report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert {element.tag for element in root.iter()}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", text)
    rows = ["".join(row.itertext()) for row in root.iter("tr")]
    bars = [element for element in root.iter("div") if "width" in element.get("style", "")]
    stages = len(bench_report.stages) + sum(len(peer.stages or {}) for peer in bench_report.peers.values())
    assert len(bars) == 1 + len(bench_report.peers) + stages
    for name in (*bench_report.stages, *bench_report.peers):
        assert any(row.startswith(name) for row in rows), name


def test_html_escapes(bench_report):
    strange = replace(bench_report, command="<b>&\x1b[0m", model={**bench_report.model, "source": "<i>\x00\ud800"})
    text = html_from_report(strange)
    assert "<b>" not in text
    assert "<i>" not in text
    assert r"<code>&lt;b&gt;&amp;\x1b[0m</code>" in text  # which XML has no way to write
    ET.fromstring(text.encode())


def test_every_table_names_the_cpu(bench_report):
    found = {**bench_report.machine, "cpu": "A CPU of ours", "cpu_numbers": "", "instructions": ["vnni"]}
    root = ET.fromstring(html_from_report(replace(bench_report, machine=found)))
    tables = list(root.iter("table"))
    notes = ["".join(note.itertext()) for note in root.iter("p")]
    of_stages = 1 + sum(peer.stages is not None for peer in bench_report.peers.values())
    assert len(tables) == 4 + of_stages == 8
    of_times = len(tables) - 1  # the last is of versions
    assert sum("1 thread of A CPU of ours (vnni)." in note for note in notes) == of_times


def loaded(report, *, worthless, reason):
    return replace(report, load=Load(worthless, (reason,) if reason else (), 0.5, report.load.spans))


def test_a_bench_under_load_says_that_it_is_worthless(bench_report):
    busy = loaded(bench_report, worthless=True, reason="other processes had 35.0% of the CPUs during int8")
    said = "These times are worthless: other processes had 35.0% of the CPUs during int8."
    assert said in html_from_report(busy)
    assert '<span class="failed">worthless</span>' in html_from_report(busy)
    assert said in printed(busy)
    assert busy.to_json()["load"]["worthless"] is True
    quiet = loaded(bench_report, worthless=False, reason="")
    assert "worthless" not in html_from_report(quiet) + printed(quiet)
    blind = loaded(bench_report, worthless=None, reason="there is no /proc/stat here")
    assert "Nobody can tell whether this machine was quiet: there is no /proc/stat here." in printed(blind)
    assert blind.to_json()["load"]["worthless"] is None


def test_html_without_peers(bench_report):
    ET.fromstring(html_from_report(replace(bench_report, peers={})))


def test_where_no_html_can_be_written(tmp_path):
    check_html_target(None)
    check_html_target(tmp_path / "new.html")
    for place in (tmp_path, tmp_path / "nowhere" / "new.html", Path("/proc/new.html")):
        with pytest.raises(OutputError, match=str(place)):
            check_html_target(place)


def printed(report) -> str:
    shown = io.StringIO()
    report.print(Console(width=200, file=shown))
    return shown.getvalue()


def test_tables(bench_report):
    text = printed(bench_report)
    for name in ("ours", *bench_report.peers, *bench_report.stages):
        assert name in text
    assert "live_stage_a alone and warm" in text
    assert "Answers that are those of paper_form: 100.0%." in text


@pytest.fixture
def written(bench_report, tmp_path):
    """A bench's JSON and a README with the two markers."""
    quiet = loaded(bench_report, worthless=False, reason="")
    (tmp_path / "bench.json").write_text(json.dumps(quiet.to_json()), encoding="utf-8")
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", encoding="utf-8")
    return [str(tmp_path / "bench.json"), "--page", str(tmp_path / "README.md")]


def test_the_readmes_section(bench_report, written, tmp_path):
    assert main([*written, "--check"]) == 1
    assert "stale" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert main(written) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "stale" not in text
    assert f"$ {bench_report.command}" in text
    assert f"| {times_faster(1 / bench_report.ratios['hf_fid_k5'])} |" in text
    assert "| FiD, Hugging Face, 5 passages | torch " in text
    assert "| live_stage_b |" in text
    assert main([*written, "--check"]) == 0


def test_a_page_with_the_table_alone(bench_report, written, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{TABLE_BEGIN}\n{TABLE_END}\nafter\n", encoding="utf-8")
    assert main(written) == 0
    text = page.read_text(encoding="utf-8")
    assert "| FiD, Hugging Face, 5 passages | torch " in text
    assert "live_stage_b" not in text
    assert main([*written, "--check"]) == 0


@pytest.mark.parametrize(
    ("worthless", "reason", "said"),
    [
        (True, "steal", "found steal"),
        (None, "no /proc/stat", "found no /proc/stat"),
        ("absent", "", "found one that does not say"),
    ],
)
def test_no_page_is_written_from_a_bench_under_load(bench_report, written, tmp_path, capsys, worthless, reason, said):
    bench = loaded(bench_report, worthless=worthless, reason=reason).to_json()
    if worthless == "absent":
        del bench["load"]
    (tmp_path / "bench.json").write_text(json.dumps(bench), encoding="utf-8")
    before = (tmp_path / "README.md").read_bytes()
    assert main(written) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "README.md").read_bytes() == before


def test_of_two_pages_both_are_written_or_none(written, tmp_path):
    other = tmp_path / "other.md"
    other.write_text("no markers", encoding="utf-8")
    before = (tmp_path / "README.md").read_bytes()
    assert main([*written, "--page", str(other)]) == 2
    assert (tmp_path / "README.md").read_bytes() == before


def test_a_readme_without_markers(written, tmp_path, capsys):
    (tmp_path / "README.md").write_text("nothing", encoding="utf-8")
    assert main(written) == 2
    assert capsys.readouterr().err.startswith("OutputError: the page")


def test_a_bench_that_is_none_of_ours_is_named(written, tmp_path, capsys):
    for spoil in (lambda path: path.write_text("{"), lambda path: path.unlink(), os.mkfifo):
        spoil(tmp_path / "bench.json")
        assert main(written) == 2
        assert capsys.readouterr().err.startswith("OutputError: ")


def test_a_readme_that_is_the_bench_by_another_name(written, tmp_path, capsys):
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").hardlink_to(tmp_path / "bench.json")
    before = (tmp_path / "bench.json").read_bytes()
    assert main(written) == 2
    assert "apart from what is read" in capsys.readouterr().err
    assert (tmp_path / "bench.json").read_bytes() == before
