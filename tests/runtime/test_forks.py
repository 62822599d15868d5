"""A forked child is refused what its parent opened, and ends; the parent goes on."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from glimmer_export.runtime import ForkedError, GlimmerError, MemoryStore, Session

SECONDS = 60
"""After which a child that hangs is killed."""

CHILD = """
import os, sys
from pathlib import Path
from glimmer_export.runtime import ForkedError, MemoryStore, Session

bundle, store = sys.argv[1:]
with Session.open(bundle, store, threads=2, verify=False) as session, Session.open(bundle, threads=2) as without:
    opened = MemoryStore.open(store, session.bundle)
    before = session.answer("w1 w33").token_ids
    pid = os.fork()
    if not pid:
        uses = (
            lambda: session.answer("w1"), lambda: session.answer_many([]), lambda: session.refresh(),
            lambda: session.warm_up(), lambda: without.answer("w1", passages=["w2 w3"]), lambda: opened.search("w1", 3),
            lambda: opened.memory(0), lambda: opened.passage(0), lambda: opened.numbers([1]), lambda: opened.newer(),
        )
        refused = 0
        for use in uses:
            try:
                use()
            except ForkedError:
                refused += 1
        session.close()
        opened.close()
        held = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()]
        holds = any(Path(path).name == "manifest.json" for path in held)
        print("child", refused == len(uses), holds, flush=True)
        END
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert session.answer("w1 w33").token_ids == before
    assert opened.passage(0)
    print("parent", session.refresh())
"""
ENDS = {
    "by its last line": "raise SystemExit(7)",
    "by an error": "1 / 0",
    "at once": "os._exit(7)",
    "after its garbage": "del session, without, opened, uses, use; import gc; gc.collect(); raise SystemExit(7)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_child_is_refused_and_ends(glimmer, end):
    source = CHILD.replace("        END\n", textwrap.indent(ENDS[end], " " * 8) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", source, glimmer.bundle, glimmer.store], capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )
    assert done.stdout.splitlines() == ["child True False", f"ended {1 if end == 'by an error' else 7}", "parent None"]
    assert done.returncode == 0, done.stderr


OPENED = {}
"""What a child of multiprocessing finds by name, as a server's workers find what was opened before the fork."""


def use(name: str) -> object:
    return OPENED[name]()


def test_multiprocessings_fork_hands_the_error_on(glimmer):
    with (
        Session.open(glimmer.bundle, glimmer.store, threads=2, verify=False) as session,
        MemoryStore.open(glimmer.store, session.bundle) as store,
    ):
        OPENED.update(session=lambda: session.answer("w1"), store=lambda: store.passage(0))
        with multiprocessing.get_context("fork").Pool(1) as pool:
            for name in OPENED:
                with pytest.raises(ForkedError) as caught:
                    pool.apply_async(use, (name,)).get(SECONDS)
                assert isinstance(caught.value, GlimmerError)
                assert caught.value.expected == f"use in process {os.getpid()}, which opened it"
        assert session.answer("w1").answer is not None
    OPENED.clear()
