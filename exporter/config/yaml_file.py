"""The YAML files of `configs/` and of users: where ours are, and the one way in which any is read.

A file is small, of plain values, and no key stands twice in a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import GlimmerError, read_limited

__all__ = ["MAX_YAML_BYTES", "configs_directory", "read_yaml", "yaml_from_text"]


def configs_directory() -> Path:
    """The folder that holds `models/`, `precision/` and `targets/`.

    A wheel carries it as data of this package; an editable install and a clone read the source tree's own.
    """
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


MAX_YAML_BYTES = 1 << 16
"""The largest file of ours has 4 kB, and PyYAML takes seconds for a few hundred."""
MAX_VALUES = MAX_YAML_BYTES
"""With what aliases stand for: a file of that size can hold no more without them, and a few lines of them billions."""
INTEGER_BITS = 64
EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


def read_yaml(path: Path, *, error: type[GlimmerError], subject: str, expected: str, fix: str) -> Any:
    """What a YAML file holds, None if it is empty: mappings, lists, strings, numbers, booleans, dates and nulls.

    Raises `error` if the file cannot be read, is no YAML, is too large, also for what its aliases stand for, nests
    too deep, has a tag that its value has not without it, a number of more than 64 bits, NaN or a lone surrogate; and
    where a key stands twice in one mapping: YAML's rules forbid it, and PyYAML would take the last one without a word.
    """
    content = read_limited(path, limit_bytes=MAX_YAML_BYTES, error=error, subject=subject, fix=fix, expected=expected)
    return yaml_from_text(content, error=error, subject=subject, expected=expected, fix=fix)


def yaml_from_text(
    content: bytes | str, *, error: type[GlimmerError], subject: str, expected: str, fix: str
) -> Any:
    """What YAML in UTF-8 holds; raises as `read_yaml`."""
    import yaml

    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return yaml.load(text, Loader=_loader())  # noqa: S506  # a SafeLoader
    except RecursionError:
        raise error(subject, expected=expected, found="values that nest too deep", fix=fix) from None
    except (ValueError, OverflowError, yaml.YAMLError) as reason:
        # The two in the middle are of escapes and directives that PyYAML does not look at. Its own take several lines.
        found = " ".join(str(reason).split()).removeprefix("found ")
        raise error(subject, expected=expected, found=found, fix=fix) from None


def _loader() -> Any:
    import yaml

    def fault(node: Any, found: str) -> Exception:
        made: Exception = yaml.constructor.ConstructorError(None, None, found, node.start_mark)
        return made

    class PlainValues(yaml.SafeLoader):
        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                self._count(node, {})
            return node

        def _count(self, node: Any, counts: dict[int, int | None]) -> int:
            """Values below a node, as many times as aliases name them; each node is looked at once."""
            if (known := counts.get(id(node), 0)) is None:
                raise fault(node, "a value that holds itself")
            if known:
                return known
            counts[id(node)] = None
            self._check_plain(node)
            below = [node] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                below = [part for pair in node.value for part in pair]
            total = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(self._count(part, counts) for part in below)
            if total > MAX_VALUES:
                raise fault(node, f"aliases that stand for more than {MAX_VALUES} values")
            counts[id(node)] = total
            return total

        def _check_plain(self, node: Any) -> None:
            """Refuse a tag that the value would not have by itself: PyYAML makes of it what it can, or fails anyhow."""
            plain = node.value if isinstance(node, yaml.ScalarNode) else None
            resolve: Any = self.resolve
            if node.tag not in {resolve(type(node), plain, implicit) for implicit in ((True, False), (False, True))}:
                raise fault(node, f"the tag {node.tag!r}, which its value does not have")
            try:
                (plain or "").encode()
            except UnicodeEncodeError:
                raise fault(node, "a lone surrogate") from None

        def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # PyYAML's own
            try:
                value = super().construct_object(node, deep)
            except (ValueError, OverflowError) as reason:  # dates, and numbers of thousands of digits
                raise fault(node, str(reason)) from None
            if isinstance(value, int) and value.bit_length() >= INTEGER_BITS:
                raise fault(node, f"an integer of more than {INTEGER_BITS} bits")
            if isinstance(value, float) and value != value:  # noqa: PLR0124  # NaN is no setting
                raise fault(node, "NaN")
            return value

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # PyYAML's own
            # Before a merge (`<<`) is put in the mapping's place, whose keys may be overridden.
            seen: set[Any] = set()
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                merged = key_node.tag == "tag:yaml.org,2002:merge"
                key = key_node.value if merged else self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable):
                    raise fault(key_node, "a mapping or a list as a key")
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping", node.start_mark, f"found the key {key!r} twice",
                        key_node.start_mark,
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    # PyYAML takes 1e-4 for a word, as YAML 1.1 wants a point in a number; YAML 1.2 does not.
    PlainValues.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789."))
    return PlainValues
