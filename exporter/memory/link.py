"""Give a file that nobody writes again a second name, or where that cannot be, a copy."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from glimmer_export.exporter.whole_file import plain_mode

__all__ = ["link"]


def link(source: Path, target: Path, name: str) -> None:
    """Give the file `name` of the directory `source` the same name below `target`, whose folders are made.

    It is a copy where the source is reached by a link, as its content is then somebody else's to keep, and where it has
    another mode than a new file would get. Raises OSError, as for a full disk.
    """
    earlier, place = source / name, target / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    own = Path(os.path.realpath(earlier)) == Path(os.path.realpath(source)) / name
    if own and stat.S_IMODE(earlier.stat().st_mode) == plain_mode(place.parent):
        try:
            os.link(earlier, place)
        except OSError:  # another file system, too many names, or one without any
            pass
        else:
            return
    shutil.copyfile(earlier, place)
