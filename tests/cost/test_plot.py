"""The picture of cost against k."""

from __future__ import annotations

import re

import pytest

from glimmer_export.exporter.cost import CostRequest, cost_report, plot_cost
from glimmer_export.exporter.cost.show import cost_curves
from glimmer_export.exporter.report.plot import check_plot
from glimmer_export.runtime.contract import OptionError, OutputError

REPORT = CostRequest(model="base")


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("new/A.SVG", b"<?xml")])
def test_written_whole_and_always_alike(tmp_path, name, magic):
    report = cost_report(REPORT)
    plot_cost(report, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic)
    plot_cost(report, tmp_path / name)
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [(tmp_path / name).name]


def test_ticks_are_plain_numbers(tmp_path):
    plot_cost(cost_report(REPORT), tmp_path / "a.svg")
    texts = re.findall(r"<!-- (.*?) -->", (tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert "1" in texts
    assert [text for text in texts if "$" in text] == []


def test_curves_pass_through_the_report():
    report = cost_report(REPORT)
    curves = cost_curves(report.model, report.workload, range(1, 51))
    assert list(curves) == ["fid", "memory_fid", "lumen", "glimmer", "ours"]
    assert curves["ours"][24] == report.our_macs
    assert curves["fid"][24] == report.paper_macs("fid")
    # Where nothing is left to select, GLIMMER is LUMEN.
    assert curves["glimmer"][:5] == curves["lumen"][:5]


def test_refused_before_anything_is_reckoned(tmp_path):
    with pytest.raises(OptionError, match=r"a file ending in .png or .svg, found 'a.pdf'"):
        check_plot(tmp_path / "a.pdf", overwrite=False)
    (tmp_path / "a.png").touch()
    with pytest.raises(OutputError, match="--overwrite"):
        check_plot(tmp_path / "a.png", overwrite=False)
    check_plot(tmp_path / "a.png", overwrite=True)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="a directory"):
        check_plot(tmp_path / "b.png", overwrite=True)
