"""What a decoder step takes in either form of cross-attention, for one position and for those of a run with a draft.

    python -m tests.engines.measure_forms ABSORBED CACHED --encoder-tokens 1760

The bundles are of one checkpoint and precision, each of one form. Their steps take turns on random states, without
padding, each warmed first; medians in ms, and what absorbed takes more. For a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from glimmer_export.runtime.backends import Array, Graph, OnnxRuntimeBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import DECODER_STEP, GraphIO
from glimmer_export.runtime.drafts import DRAFT_TOKENS

LENGTHS = (1, 1 + DRAFT_TOKENS)
WARM_UPS = 2


def inputs_of(io: GraphIO, sizes: dict[str, int], vocab_size: int) -> dict[str, Array]:
    """Random token ids and states, a mask of ones, and a position in the middle of the cache."""
    random, found = np.random.default_rng(0), {}
    for tensor in io.inputs:
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
        if tensor.name == "decoder_input_ids":
            values = random.integers(0, vocab_size, shape)
        elif tensor.name == "step":
            values = np.full(shape, 3)
        elif tensor.name == "encoder_attention_mask":
            values = np.ones(shape)
        else:
            values = random.standard_normal(shape)
        found[tensor.name] = values.astype(tensor.dtype)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("absorbed", type=Path)
    parser.add_argument("cached", type=Path)
    parser.add_argument("--encoder-tokens", type=int, default=1760)
    parser.add_argument("--cache-length", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=60)
    given = parser.parse_args()
    backend = OnnxRuntimeBackend(threads=given.threads)
    cases: dict[tuple[str, int], tuple[Graph, dict[str, Array]]] = {}
    for form, place in (("absorbed", given.absorbed), ("cached", given.cached)):
        bundle = Bundle.open(place)
        io = bundle.manifest.io()[DECODER_STEP]
        graph = backend.load(bundle.graph_path(DECODER_STEP), io)
        for positions in LENGTHS:
            sizes = {
                "batch": 1, "positions": positions, "encoder_tokens": given.encoder_tokens,
                "cache_length": given.cache_length,
            }
            cases[form, positions] = graph, inputs_of(io, sizes, bundle.manifest.model.vocab_size)
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for turn in range(given.repeats):
        for case in sorted(cases, reverse=bool(turn % 2)):
            graph, values = cases[case]
            for _ in range(WARM_UPS):
                graph.run(values)
            began = time.perf_counter()
            graph.run(values)
            times[case].append(1e3 * (time.perf_counter() - began))
    found = {case: median(values) for case, values in times.items()}
    lines = [f"{form}, {positions}: {value:.2f} ms" for (form, positions), value in sorted(found.items())]
    more = {positions: found["absorbed", positions] - found["cached", positions] for positions in LENGTHS}
    lines += [f"absorbed more, {positions}: {value:.2f} ms" for positions, value in more.items()]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
