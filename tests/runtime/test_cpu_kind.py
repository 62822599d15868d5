"""Which kind of CPU this is, and what a session says that finds itself on another than its bundle was made for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from glimmer_export.runtime import Session, cpu_kind, opening
from glimmer_export.runtime.contract import CPU_KINDS, MANIFEST
from tests.bundle_factory import rewrite
from tests.exported import Exported, copy_bundle

CPUINFO = """\
processor\t: 0
model name\t: a CPU with avx512_vnni in its name
flags\t\t: {flags}
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: {flags}
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Pretend to be a machine of that name, with these lines in /proc/cpuinfo, or without the file."""

    def pretend(name: str, cpuinfo: str | bytes | None) -> None:
        path = tmp_path / "cpuinfo"
        if cpuinfo is not None:
            path.write_bytes(cpuinfo if isinstance(cpuinfo, bytes) else cpuinfo.encode())
        monkeypatch.setattr(cpu_kind, "CPUINFO", path)
        monkeypatch.setattr("platform.machine", lambda: name)

    return pretend


@pytest.mark.parametrize(
    ("name", "cpuinfo", "expected"),
    [
        ("x86_64", CPUINFO.format(flags="fpu sse2 avx2 avx512f avx512_vnni"), "x86-vnni"),
        ("x86_64", CPUINFO.format(flags="fpu avx_vnni avx2"), "x86-vnni"),
        ("AMD64", CPUINFO.format(flags="fpu avx512vnni"), "x86-vnni"),
        ("x86_64", CPUINFO.format(flags="fpu sse2 avx2 avx512f"), "x86"),
        ("x86_64", CPUINFO.format(flags="avx512_vnni_none not_avx_vnni"), "x86"),
        ("x86_64", "processor : 0\n", "x86"),
        ("x86_64", "", "x86"),
        ("x86_64", b"\xff\xfe\x00flags", "x86"),
        ("x86_64", None, "x86"),
        ("aarch64", "Features : asimddp i8mm\n", "arm"),
        ("arm64", None, "arm"),
        ("ARM64", CPUINFO.format(flags="avx_vnni"), "arm"),
    ],
)
def test_the_kind_of_a_machine(machine, name, cpuinfo, expected):
    machine(name, cpuinfo)
    assert cpu_kind.cpu_kind() == expected
    assert expected in CPU_KINDS


def test_this_machine_has_a_kind():
    assert cpu_kind.cpu_kind() in CPU_KINDS


def made_for(source: Exported, directory: Path, target: str, kind: str | None, precision: str = "int8") -> Path:
    """A bundle that says of itself that it was quantised."""
    bundle = copy_bundle(source, directory)
    graphs = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["graphs"]
    rewrite(bundle / MANIFEST, graphs={name: {**graph, "precision": precision} for name, graph in graphs.items()})
    entry = {"target": target, "cpu_kind": kind, "method": "max", "policy": "int8", "residual_scales": {}, "keep": []}
    rewrite(bundle / MANIFEST, quantization=entry)
    return bundle


@pytest.mark.parametrize(
    ("kind", "here", "loss"),
    [("x86-vnni", "x86", "saturate"), ("arm", "x86-vnni", "slower"), ("x86-vnni", "arm", "slower")],
)
def test_a_session_on_another_kind_of_cpu_warns_once(glimmer, tmp_path, monkeypatch, kind, here, loss):
    bundle = made_for(glimmer, tmp_path / "bundle", "cpu", kind)
    monkeypatch.setattr(opening, "cpu_kind", lambda: here)
    with pytest.warns(UserWarning, match="made for a CPU") as caught:
        opened = Session.open(bundle, glimmer.store, threads=1)
    with opened:
        assert opened.answer("w33").token_ids
    assert [item.filename for item in caught] == [__file__]
    message = str(caught[0].message)
    command = f"glimmer-export quantize BUNDLE --target cpu --cpu {here}"
    for part in (str(bundle), f"kind {kind}", f"this is {here}", loss, command):
        assert part in message


@pytest.mark.parametrize(
    ("target", "kind", "precision"), [("cpu", "x86", "int8"), ("tensorrt", None, "int8"), ("cpu", "arm", "fp16")]
)
def test_a_session_where_its_bundle_belongs_does_not_warn(glimmer, tmp_path, monkeypatch, target, kind, precision):
    bundle = made_for(glimmer, tmp_path / "bundle", target, kind, precision)
    monkeypatch.setattr(opening, "cpu_kind", lambda: "x86")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Session.open(bundle, threads=1).close()
