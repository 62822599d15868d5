"""Where errors of input and of the system become a line on stderr and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from glimmer_export.exporter.cli.extras import EXTRAS, missing_extra
from glimmer_export.exporter.cli.streams import StandardOutputError, standard_streams
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import GlimmerError, OperatingSystemError, OutputError

__all__ = ["input_errors_reported"]

BROKEN_PIPE = 141
"""As a shell has it of a program that a broken pipe kills: `glimmer-export inspect BUNDLE | head -1` is no mistake."""
SYSTEM = {
    errno.EACCES: "see to its permissions",
    errno.EPERM: "see to its permissions",
    errno.EROFS: "use a file system that can be written",
    errno.ENOENT: "name one that is there",
    errno.ENOTDIR: "name one that is there",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another",
    errno.ENOTEMPTY: "name another",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ELOOP: "mend the links on the way to it",
    errno.ENOSPC: "free some space, and run the command again",
    errno.EDQUOT: "free some space, and run the command again",
    errno.EFBIG: "use a file system for larger files",
    errno.EMFILE: "raise the limit (`ulimit -n`)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "use a machine with more memory",
    errno.EIO: "see to the disk: the system's log says more",
    errno.ESTALE: "see to the network's disk, and run the command again",
    errno.ETXTBSY: "wait until it is not in use",
    errno.EBUSY: "wait until it is not in use",
    errno.ENODEV: "see to the device",
    errno.ENXIO: "see to the device",
}
"""What the system refuses with, and what helps."""


@contextmanager
def input_errors_reported() -> Iterator[None]:
    """Turn errors of input, of the system, and packages that no extra has brought into a line and exit code 2.

    Of the system are OSErrors that name a file or are of a known kind, and memory that is not to be had.
    """
    try:
        with standard_streams(), _warnings_on_one_line():
            try:
                yield
            except GlimmerError as error:
                _fail(error)
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package not in EXTRAS:
                    raise
                _fail(missing_extra(package))
            except MemoryError as error:
                _fail(_without_memory(error))
            except OSError as error:
                if error.filename is None and error.errno not in SYSTEM:
                    raise
                _fail(_refused(error))
    except StandardOutputError as error:
        _leave_standard_output(error)


@contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Print what is warned of as errors are, without the place in the source, which is no user's business."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {visible(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _fail(error: GlimmerError) -> NoReturn:
    sys.stderr.write(f"{type(error).__name__}: {visible(str(error))}\n")
    sys.exit(2)


def _refused(error: OSError) -> OperatingSystemError:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return OperatingSystemError(
        " -> ".join(names) or "the operating system", expected="it to do what the command asks of it",
        found=error.strerror or str(error),
        fix=SYSTEM.get(error.errno or 0, "see to it, and run the command again"),
    )  # fmt: skip


def _without_memory(error: MemoryError) -> OperatingSystemError:
    return OperatingSystemError(
        "memory", expected="enough for what the command asks for", found=str(error) or "none left",
        fix="ask for less at a time, or use a machine with more",
    )


def _leave_standard_output(error: StandardOutputError) -> NoReturn:
    """Say what is wrong with it; what is still to be printed goes nowhere, so that nothing fails in the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if error.errno == errno.EPIPE:
        sys.exit(BROKEN_PIPE)
    _fail(
        OutputError(
            "standard output", expected="a place that takes what is printed", found=str(error),
            fix="free some space, or print elsewhere; what the command wrote to files is whole",
        )
    )
