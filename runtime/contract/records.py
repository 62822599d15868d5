"""JSON files -> frozen dataclasses, strictly: a missing, unknown or mistyped field is a named error."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from glimmer_export.runtime.contract.errors import GlimmerError
from glimmer_export.runtime.contract.files import is_there, read_limited
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.kinds import FORMATS

__all__ = [
    "FileKind",
    "json_object",
    "read_json",
    "read_json_value",
    "read_record",
    "record_from_json",
    "record_of_kind",
    "record_to_json",
    "record_to_lines",
]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FileKind:
    """One of our formats: what its files call themselves, a key of FORMATS, its version and the oldest that is read."""

    format: str
    version: int
    oldest: int


MAX_JSON_BYTES = 64 << 20
"""A manifest of a hundred thousand shards has 30 MB; parsed, a file takes some ten times its size."""


def read_json(path: Path, *, error: type[GlimmerError], fix: str, strict: bool = True) -> dict[str, Any]:
    """Parse a JSON object; raises `error` if the file is absent, no regular one, oversized or not a JSON object.

    `strict`, for files of our own formats: numbers are of 64 bits and finite, no key stands twice in one object, and
    every string can be written.
    """
    if not is_there(path):
        raise error(str(path.parent), expected=f"a file {path.name}", found="none", fix=fix)
    data = read_json_value(path, error=error, subject=str(path), expected="a JSON object", fix=fix, strict=strict)
    return _object(data, error=error, subject=str(path), fix=fix)


def json_object(content: bytes, *, error: type[GlimmerError], subject: str, fix: str) -> dict[str, Any]:
    """Parse the bytes of a file of our own as a JSON object, strictly; raises `error` if they are not."""
    data = _json_value(content, error=error, subject=subject, expected="a JSON object", fix=fix, strict=True)
    return _object(data, error=error, subject=subject, fix=fix)


def read_json_value(
    path: Path, *, error: type[GlimmerError], subject: str, expected: str, fix: str, strict: bool = False
) -> Any:
    """What a JSON file holds, `strict` as in parse_json; raises `error` if it cannot be read, or is no JSON."""
    content = read_limited(
        path, limit_bytes=MAX_JSON_BYTES, error=error, subject=subject, fix=fix, expected=expected
    )
    return _json_value(content, error=error, subject=subject, expected=expected, fix=fix, strict=strict)


def _json_value(
    content: bytes, *, error: type[GlimmerError], subject: str, expected: str, fix: str, strict: bool
) -> Any:
    try:
        return parse_json(content.decode("utf-8"), strict=strict)
    except ValueError as reason:
        raise error(subject, expected=expected, found=str(reason), fix=fix) from None


def _object(data: Any, *, error: type[GlimmerError], subject: str, fix: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise error(subject, expected="a JSON object", found=type(data).__name__, fix=fix)
    return data


def read_record(
    path: Path, kind: FileKind, record: type[T], *, error: type[GlimmerError], subject: str, fix: str,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> T:
    """Read a file of one of our formats; raises `error` as `read_json` and `record_of_kind`."""
    data = read_json(path, error=error, fix=fix)
    return record_of_kind(data, kind, record, error=error, subject=subject, fix=fix, upgrade=upgrade)


def record_of_kind(
    data: dict[str, Any], kind: FileKind, record: type[T], *, error: type[GlimmerError], subject: str, fix: str,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> T:
    """The same of a file that was parsed.

    The record has today's version, with the defaults of what an older one lacks; `upgrade` sees the data as it stands
    in the file, and gives that of today's layout where defaults do not. Raises `error`: of another kind or version, and
    as `record_from_json`.
    """
    found = data.get("format", kind.format)  # without the field it is from before there was one
    if found != kind.format:
        known = FORMATS.get(found) if isinstance(found, str) else None
        raise error(
            subject, expected=f"{FORMATS[kind.format]} ({kind.format})",
            found=f"{known} ({found})" if known else f"format {found!r}"[:80], fix=fix,
        )
    version = data.get("schema_version")
    number = version if isinstance(version, int) and not isinstance(version, bool) else 0
    if not kind.oldest <= number <= kind.version:
        known = f"{kind.oldest} to {kind.version}" if kind.oldest < kind.version else str(kind.version)
        raise error(
            subject, expected=f"schema_version {known}", found=repr(version),
            fix="install a newer glimmer-export" if number > kind.version else fix,
        )
    upgraded = data if upgrade is None else upgrade(data)
    today = {**upgraded, "format": kind.format, "schema_version": kind.version}
    return record_from_json(record, today, error=error, subject=subject, fix=fix)


def record_from_json(kind: type[T], data: Any, *, error: type[GlimmerError], subject: str, fix: str) -> T:
    """Build the frozen dataclass `kind` from parsed JSON, checking each field against its annotation.

    Knows dataclasses, `X | None`, tuple[X, ...], dict[str, X], int, float, str, bool, and Any, which is not looked at.
    A field with a default came with a later version of its format: files from before lack it and mean the default.
    Raises `error`.
    """

    def fail(where: str, expected: str, value: object) -> GlimmerError:
        return error(f"{subject}{where}", expected=expected, found=repr(value)[:80], fix=fix)

    def build(annotation: Any, value: Any, where: str) -> Any:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if dataclasses.is_dataclass(annotation):
            if not isinstance(value, dict):
                raise fail(where, "an object", value)
            hints = typing.get_type_hints(annotation)
            if unknown := sorted(set(value) - set(hints)):
                raise fail(where, f"only the fields {', '.join(hints)}", unknown[0])
            if missing := sorted(set(hints) - set(value) - _optional(annotation)):
                raise fail(where, f"a field {missing[0]}", "none")
            fields = {name: build(hints[name], item, f"{where}.{name}") for name, item in value.items()}
            return typing.cast("typing.Callable[..., Any]", annotation)(**fields)
        if origin in (typing.Union, types.UnionType):
            for argument in arguments:
                if argument is type(None):
                    if value is None:
                        return None
                elif not isinstance(argument, type) or _is_plain(value, argument):
                    return build(argument, value, where)
            raise fail(where, " or ".join(getattr(item, "__name__", str(item)) for item in arguments), value)
        if origin is tuple:
            if not isinstance(value, list):
                raise fail(where, "a list", value)
            return tuple(build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
        if origin is dict:
            if not isinstance(value, dict):
                raise fail(where, "an object", value)
            return {str(key): build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
        if annotation is not Any and not _is_plain(value, annotation):
            raise fail(where, annotation.__name__, value)
        return value

    result: T = build(kind, data, "")
    return result


def record_to_json(record: Any) -> str:
    """The record as JSON text with a stable layout, so that equal records have equal bytes."""
    return json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n"


def record_to_lines(record: Any) -> str:
    """As `record_to_json`, with a line for each field, and for each entry of a list: of long lists half the bytes."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def lines(value: Any) -> str:
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            return "[\n" + ",\n".join(f"    {text(item)}" for item in value) + "\n  ]"
        return text(value)

    fields = (f"  {text(name)}: {lines(value)}" for name, value in dataclasses.asdict(record).items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _optional(kind: Any) -> set[str]:
    missing = dataclasses.MISSING
    return {
        field.name for field in dataclasses.fields(kind)
        if field.default is not missing or field.default_factory is not missing
    }


def _is_plain(value: object, kind: type) -> bool:
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
