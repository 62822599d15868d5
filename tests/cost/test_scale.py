"""The tables of docs/scale.md are what `glimmer-export cost` reckons, and its other arithmetic follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.ours import passage_macs, store_codecs
from glimmer_export.exporter.cost.report import CostRequest, Resolved, resolve

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
SPOKEN = " ".join(TEXT.split())
PASSAGES, LENGTHS, SIZES = 30_000_000, (304, 128), ("base", "large", "xl", "xxl")
CORE_MACS_PER_SECOND = 46.7e9


def rows(title: str) -> dict[str, list[str]]:
    """Cells of the table below the comment `title`, by the first."""
    table = TEXT.partition(f"<!-- {title} -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {first: rest for first, *rest in cells}


def resolved(size: str, tokens: int) -> Resolved:
    return resolve(CostRequest(model=size, passages=PASSAGES, passage_tokens=tokens))


def hours(target: str, precision: str, macs: int) -> float:
    return 2 * macs * PASSAGES / (getattr(read_target(target).peak_tops, precision) * 1e12) / 3600


@pytest.mark.parametrize("tokens", LENGTHS)
def test_work(tokens):
    table = rows(f"work: {tokens} tokens")
    assert tuple(table) == SIZES
    for size, cells in table.items():
        found = resolved(size, tokens)
        macs = passage_macs(found.model, found.workload)
        floors = [hours(name, precision, macs) for name in ("h200", "t4") for precision in ("fp32", "fp16")]
        layers = found.model.shape.num_memory_layers
        assert cells == [str(layers), f"{macs / 1e9:.1f}", *(f"{floor:,.1f}" for floor in floors)]


@pytest.mark.parametrize("tokens", LENGTHS)
def test_bytes(tokens):
    table = rows(f"bytes: {tokens} tokens")
    assert tuple(table) == SIZES
    for size, cells in table.items():
        model: CostModel = resolved(size, tokens).model
        sizes = store_codecs(model, tokens).values()
        expected = [cell for number in sizes for cell in (f"{number:,}", f"{number * PASSAGES / 1e12:.2f}")]
        assert cells == [f"{model.shape.d_model:,}", *expected]


def test_core_hours():
    table = rows("core-hours")
    assert tuple(table) == SIZES
    for size, cells in table.items():
        macs = [passage_macs(found.model, found.workload) for found in (resolved(size, tokens) for tokens in LENGTHS)]
        assert cells == [f"{PASSAGES * number / CORE_MACS_PER_SECOND / 3600:,.0f}" for number in macs]


def test_the_network():
    sizes = {cells[column] for cells in rows("bytes: 304 tokens").values() for column in (2, 14)}
    table = rows("network")
    for first, cells in table.items():
        terabytes = first.partition(" ")[0]
        assert terabytes in sizes
        hours = [float(terabytes) * 1e12 / (gigabits * 1e9 / 8) / 3600 for gigabits in (10, 25, 100)]
        assert [float(cell) for cell in cells] == pytest.approx(hours, rel=0.06, abs=0.03)


def test_what_the_text_says_of_the_tables():
    base, large = (resolved(size, 304) for size in ("base", "large"))
    seconds = 2 * passage_macs(base.model, base.workload) / (read_target("h200").peak_tops.fp16 * 1e12)
    rate = store_codecs(base.model, 304)["fp16"] / seconds / 1e9
    assert f"would have to write {rate:.1f} GB/s, and at 40% of the peak {0.4 * rate:.1f} GB/s" in SPOKEN
    macs = passage_macs(large.model, large.workload)
    h200, t4 = (hours(name, "fp16", macs) / 0.4 for name in ("h200", "t4"))
    assert f"large at 304 tokens is {h200:.1f} hours of an H200 or {t4:.0f} of a T4" in SPOKEN
    assert f"{-(-PASSAGES // 4096):,} shards" in SPOKEN
