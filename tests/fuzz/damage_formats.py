"""Damage inside a format: what lies in a container is damaged, and the container is whole and says so."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from random import Random

import yaml

from tests.fuzz.damage_bytes import damage_bytes
from tests.fuzz.damage_values import damage_json, damage_value, to_json

__all__ = ["damage_format"]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def damage_format(content: bytes, name: str, random: Random) -> bytes | None:  # noqa: PLR0911 - one for each format
    """The content damaged as its format has it, None where nothing is known of it."""
    if name.endswith(".safetensors"):
        return _safetensors(content, random)
    if name.endswith((".yaml", ".yml")):
        return _yaml(content, random)
    if name.endswith(".npy"):
        return _npy(content, random)
    if name.endswith(".onnx"):
        return _onnx(content, random)
    if content[:4] == b"PK\x03\x04":
        return _zip(content, random)
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(_inner(gzip.decompress(content), random))
    if content[:4] == ZSTD_MAGIC:
        return _zstd(content, random)
    return damage_json(content, random)


def _inner(content: bytes, random: Random) -> bytes:
    return damage_json(content, random) or damage_bytes(content, random)


def _safetensors(content: bytes, random: Random) -> bytes | None:
    """A header of other values, of the length that stands before it."""
    length = int.from_bytes(content[:8], "little")
    header = damage_json(content[8 : 8 + length], random)
    return None if header is None else len(header).to_bytes(8, "little") + header + content[8 + length :]


def _yaml(content: bytes, random: Random) -> bytes:
    value = damage_value(yaml.safe_load(content), random)
    if random.random() < 0.5:
        return to_json(value, random)
    text = content.decode()
    line = random.choice(text.splitlines() or [""])
    odd = random.choice((
        "!!int abc", "!!float x", "!!timestamp 0", "!!python/object:os.system x", "9" * 5000, "[" * 3000, "{" * 3000,
        "&a [*a, *a]", "*unknown", "0x", "1:2:3:4", "2020-99-99", "\ud800", "? [a]", "<<: 1", "!!set {a, b}",
        "!!binary AAAA", "a: b: c", "\t", "%YAML 9.9", "--- \n--- ", "'", "\x00", "0" + "_" * 100, ".inf", "1e999",
    ))
    changed = random.choice((f"{line.partition(':')[0]}: {odd}", f"{line}\n{line}", odd, f"{line}\n  {odd}"))
    return text.replace(line, changed, 1).encode("utf-8", "surrogatepass")


def _npy(content: bytes, random: Random) -> bytes:
    """A header of other text, of the length that stands before it."""
    length = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + length].decode("latin-1")
    odd = random.choice((
        "(2**62, 8)", "(4611686018427387904, 8)", "(-5, -8)", "()", "(True,)", "(0, 8)", "(1e3, 8)", "'<f4'", "None",
        "{}", "(" * 2000, "9" * 5000, "'O'", "'<M8[99999999999s]'", "'<U999999999'", "'V0'", "[('a', '<f4')]", "\0",
        "-" * 5000,
    ))
    begin = header.find(random.choice(("(", "'<f", "False", "'descr'", "}")))
    changed = (header[:begin] + odd + header[begin + random.choice((1, 5, 9)) :]).encode("latin-1")
    return content[:8] + struct.pack("<H", len(changed) & 0xFFFF) + changed + content[10 + length :]


def _zip(content: bytes, random: Random) -> bytes:
    """One member damaged, the checksums right; or members of other names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        names = source.namelist()
        damaged = random.choice([name for name in names if name.endswith(".pkl")] * 3 + names)
        for name in names:
            member = source.read(name)
            kept = name != damaged or random.random() < 0.9
            target.writestr(name if kept else f"../{name}", damage_bytes(member, random) if name == damaged else member)
    return stream.getvalue()


def _zstd(content: bytes, random: Random) -> bytes:
    from backports import zstd

    return bytes(zstd.compress(_inner(zstd.decompress(content), random)))


def _onnx(content: bytes, random: Random) -> bytes | None:  # noqa: PLR0912 - a branch for each kind
    """A graph that is read as one: nodes, attributes, shapes, types and places of weights are others."""
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception:  # noqa: BLE001 - protobuf's own errors have no common class
        return None
    graph, numbers = model.graph, (-1, 0, 1, 2, 7, 64, 1 << 31, (1 << 62) - 1)
    for _ in range(random.choice((1, 1, 2))):
        if not graph.node:
            break
        node, kind = random.choice(graph.node), random.randrange(9)
        weight = random.choice(graph.initializer) if graph.initializer else None
        if kind == 0 and node.attribute:
            attribute = random.choice(node.attribute)
            if attribute.type == onnx.AttributeProto.INT:
                attribute.i = random.choice(numbers)
            elif attribute.ints:
                attribute.ints[random.randrange(len(attribute.ints))] = random.choice(numbers)
        elif kind == 1 and node.input:
            others = [name for other in graph.node for name in other.output]
            node.input[random.randrange(len(node.input))] = random.choice([*others, "", "unknown"])
        elif kind == 2 and node.input:
            del node.input[random.randrange(len(node.input))]
        elif kind == 3:
            others = [other.op_type for other in graph.node]
            node.op_type = random.choice([*others, "Reshape", "Expand", "Loop", "If", "Unknown", "Tile"])
        elif kind == 4:
            graph.node.remove(node)
        elif kind == 5 and weight is not None and weight.dims:
            weight.dims[random.randrange(len(weight.dims))] = random.choice(numbers)
        elif kind == 6 and weight is not None:
            weight.data_type = random.choice((0, 1, 2, 7, 9, 10, 16, 99))
        elif kind == 7 and weight is not None:
            for entry in weight.external_data:
                entry.value = random.choice(("../../../victim", "/proc/version", "-1", "0", "64", str(1 << 62), ""))
        elif kind == 8:
            value = random.choice([*graph.input, *graph.output])
            dims = value.type.tensor_type.shape.dim
            if dims:
                dims[random.randrange(len(dims))].dim_value = random.choice(numbers)
            value.type.tensor_type.elem_type = random.choice((1, 1, 6, 7, 10))
    return bytes(model.SerializeToString())
