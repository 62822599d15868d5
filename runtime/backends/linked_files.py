"""A graph's files that lie elsewhere, where the user's system put them, with links beside the graph that lead there.

ONNX Runtime 1.23 reads external data through links. Later releases refuse a file that does not lie below the graph's
folder; they can be given its bytes instead, which stay mapped and are not copied.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract.files import map_file
from glimmer_export.runtime.external_data import external_data

__all__ = ["map_linked_files"]

GIVE = "add_external_initializers_from_files_in_memory"
WITHOUT_COPY = "session.use_external_initializer_file_buffers_directly"


def map_linked_files(options: Any, graph: Path | bytes, folder: Path) -> list[mmap.mmap]:
    """Give session options the bytes of a graph's files that lead out of its folder, to be kept as long as the session.

    `graph` is its file, verified, or its content. Raises OSError.
    """
    if not hasattr(options, GIVE) or not any(path.is_symlink() for path in folder.rglob("*")):
        return []
    content = map_file(graph) if isinstance(graph, Path) else graph
    try:
        names = {data.location.decode() for data in external_data(memoryview(content or b""))}
    except ValueError:  # no graph, which ONNX Runtime has words for
        return []
    real = folder.resolve()
    linked = (name for name in sorted(names) if not (folder / name).resolve().is_relative_to(real))
    files = {name: file for name in linked if (file := map_file(folder / name)) is not None}
    if files:
        options.add_session_config_entry(WITHOUT_COPY, "1")
        getattr(options, GIVE)(list(files), list(files.values()), [len(file) for file in files.values()])
    return list(files.values())
