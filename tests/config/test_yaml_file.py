"""YAML is read in one way: what stands twice, what has no end and what is no value is named wherever it is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glimmer_export.calibration.policy import Policy
from glimmer_export.exporter.checkpoint.t5x.name_map import read_name_map
from glimmer_export.exporter.config.read import read_config
from glimmer_export.exporter.config.yaml_file import read_yaml
from glimmer_export.exporter.parity.gate import read_gate
from glimmer_export.runtime.contract import OptionError

ROOT = Path(__file__).resolve().parents[2]


def read(path: Path):
    return read_yaml(path, error=OptionError, subject="file", expected="a mapping", fix="correct it")


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a: 1\nb: 2\na: 1\n",
        "outer:\n  a: 1\n  a: 2\n",
        "- {a: 1, a: 2}\n",
        "a: 1\n'a': 2\n",
        "1: x\n0x1: y\n",
        "base: &base {a: 1}\nother: {<<: *base, b: 1, b: 2}\n",
    ],
)
def test_a_key_that_stands_twice_is_an_error(tmp_path, content):
    with pytest.raises(OptionError, match="twice"):
        read(write(tmp_path / "file.yaml", content))


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", None),
        ("a: 1\nb: {a: 2}\n", {"a": 1, "b": {"a": 2}}),
        ("\ufeffa: 1\n", {"a": 1}),
        ("base: &base {a: 1, b: 1}\nother: {<<: *base, a: 2}\n", {"base": {"a": 1, "b": 1}, "other": {"a": 2, "b": 1}}),
    ],
)
def test_what_stands_once_is_read(tmp_path, content, value):
    assert read(write(tmp_path / "file.yaml", content)) == value


@pytest.mark.parametrize("content", ["[1, 2", "a: !!python/object:os.system {}", "? [a, b]\n: 1\n"])
def test_what_is_no_plain_yaml_is_named(tmp_path, content):
    with pytest.raises(OptionError, match="file: expected a mapping"):
        read(write(tmp_path / "file.yaml", content))


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
MERGES = LAUGHS.replace("[x, x, x, x, x, x, x, x, x]", "{x: 1}").replace(" [", " {<<: [").replace("]", "]}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a: !!int abc", "the tag 'tag:yaml.org,2002:int', which its value does not have"),
        ("a: !!int ''", "which its value does not have"),
        ("a: !!bool maybe", "which its value does not have"),
        ("a: !!timestamp now", "which its value does not have"),
        ("a: !!binary é", "which its value does not have"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: 0x_", "invalid literal for int"),
        (f"a: {'9' * 5000}", "5000 digits"),
        (f"a: 0x{'f' * 17}", "an integer of more than 64 bits"),
        (f"a: 1{':01' * 5000}.5", "too large to convert to float"),
        ("a: .nan", "NaN"),
        ('a: "\\ud800"', "a lone surrogate"),
        ('a: "\\UFFFFFFFF"', "too large"),
        (f"%YAML {'9' * 5000}.1\n---\na: 1", "5000 digits"),
        ("[" * 2000, "values that nest too deep"),
        ("a: &a [*a]", "a value that holds itself"),
        ("? {a: 1}\n: 1", "a mapping or a list as a key"),
        (LAUGHS, "aliases that stand for more than"),
        (MERGES, "aliases that stand for more than"),
        ("a: b\n" * 20_000, "100000"),
    ],
    ids=lambda value: value[:20].replace("\n", " "),
)
def test_what_would_take_a_value_of_any_size_or_a_traceback_is_named(tmp_path, content, found):
    with pytest.raises(OptionError, match=rf"^file: expected .*, found .*{re.escape(found)}"):
        read(write(tmp_path / "file.yaml", content))


def test_as_many_keys_as_a_file_may_have_are_read(tmp_path):
    keys = {f"k{number}": number for number in range(5000)}
    assert read(write(tmp_path / "file.yaml", "".join(f"{key}: {value}\n" for key, value in keys.items()))) == keys


def test_every_reader_of_yaml_refuses_it(tmp_path):
    gate = write(tmp_path / "gate.yaml", "description: x\nmin_top_m_overlap: 0.9\nmin_top_m_overlap: 0.1\n")
    with pytest.raises(OptionError, match="min_top_m_overlap' twice"):
        read_gate(str(gate))
    policy = (ROOT / "configs" / "precision" / "int8.yaml").read_text(encoding="utf-8")
    with pytest.raises(OptionError, match="lazy_layer' twice"):
        read_config("policy", str(write(tmp_path / "policy.yaml", f"{policy}\nlazy_layer: true\n")), Policy)
    with pytest.raises(OptionError, match="decoder' twice"):
        read_name_map(write(tmp_path / "map.yaml", "decoder: a\ndecoder: b\n"))
    sources = [path for name in ("exporter", "calibration", "runtime") for path in (ROOT / name).rglob("*.py")]
    others = [path for path in sources if re.search(r"yaml\.(safe_)?load|yaml\.Loader", path.read_text("utf-8"))]
    assert [path.name for path in others] == ["yaml_file.py"]
