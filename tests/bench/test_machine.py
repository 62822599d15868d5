"""What a table calls a CPU."""

from __future__ import annotations

import json
import os

import pytest

from glimmer_export.exporter.bench import machine
from glimmer_export.runtime import cpu_kind

EPYC = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512f avx_vnni avx512_bf16 avx512_vnni

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
Features\t: fp asimd asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    def put(text: str | None) -> dict[str, object]:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        for module in (machine, cpu_kind):
            monkeypatch.setattr(module, "CPUINFO", path)
        return machine.describe_machine()

    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    return put


def test_name_family_and_the_instructions_that_matter(cpuinfo):
    found = cpuinfo(EPYC)
    assert found["cpu"] == "AMD EPYC"
    assert found["instructions"] == ["avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16"]
    assert machine.cpu_label(found) == (
        "AMD EPYC (family 26, model 2; avx512f, avx_vnni, avx512_vnni, avx512_bf16)"
    )
    assert json.loads(json.dumps(found)) == found


def test_an_arm_has_numbers_for_a_name(cpuinfo):
    assert machine.cpu_label(cpuinfo(ARM)) == "arm64 (implementer 0x41, part 0xd4f; asimddp, i8mm, bf16)"


def test_without_proc(cpuinfo, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    found = cpuinfo(None)
    assert machine.cpu_label(found) == "arm64"
    assert found["cpus"] == os.cpu_count()
    assert found["load_average"] is None
