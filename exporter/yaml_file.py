"""The one way in which a YAML file is read: a key that stands twice in a mapping is an error, not a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.contract import GlimmerError

__all__ = ["read_yaml"]


def read_yaml(path: Path, *, error: type[GlimmerError], subject: str, expected: str, fix: str) -> Any:
    """What a YAML file holds, None where it is empty.

    Raises `error` where the file cannot be read, is no YAML, nests too deep, or has a key twice in one mapping: YAML's
    rules forbid it, and PyYAML would take the last one without a word.
    """
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_loader())  # noqa: S506  # a SafeLoader
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as reason:
        # YAML's errors take several lines.
        raise error(subject, expected=expected, found=" ".join(str(reason).split()), fix=fix) from None


def _loader() -> Any:
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # PyYAML's own
            # Before a merge (`<<`) is put in the mapping's place, whose keys may be overridden.
            seen: list[Any] = []
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                merged = key_node.tag == "tag:yaml.org,2002:merge"
                key = key_node.value if merged else self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping", node.start_mark, f"found the key {key!r} twice",
                        key_node.start_mark,
                    )
                seen.append(key)
            return super().construct_mapping(node, deep)

    return UniqueKeys
