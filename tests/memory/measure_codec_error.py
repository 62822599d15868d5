"""Measures what quantisers lose of memory at equal bytes: `python -m tests.memory.measure_codec_error --help`.

Each is fitted to tokens of some passages and tried on tokens of others: our codecs as stores have them, and beside them
faiss's product quantisation, plain and behind a rotation (OPQ), with and without a gain a token. Memory comes from fp16
stores, and from the token states of a sentence encoder on passages that people wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.memory.codec_fit import fit_codec
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import Array, codec_layout
from glimmer_export.runtime.codecs.residual import GAINS, gain_codes
from glimmer_export.runtime.store import MemoryStore

Tried = Callable[[Array, Array], Array]
"""Rows to fit to and rows to try, (n, d) float32 -> what comes back of the second."""

OURS = {"2x": ("int8",), "4x": ("int4", "rq4x"), "8x": ("pq8x", "rq8x"), "16x": ("pq16x", "rq16x")}
"""Codecs by how much smaller than fp16 they are, nearly."""
SHARES = {"2x": 1, "4x": 2, "8x": 4, "16x": 8}
"""Channels of a byte."""
OPQ_ITERATIONS = 8
LONGEST = 256
"""Tokens of a passage that the sentence encoder reads."""


def stored(bundle: Path, store: Path) -> list[Array]:
    """Memory of every passage of a store, (tokens, d) float32."""
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        assert opened.codec is not None
        return [
            opened.codec.decode(opened.memory(number).tensors)
            for number in opened.first_numbers(opened.num_passages)
        ]


def sentence_states(model: Path, corpus: Path, passages: int) -> list[Array]:
    """The last states of an encoder on passages in even steps through a corpus, (tokens, d) float32."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    encoder = AutoModel.from_pretrained(model)
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    states = []
    with torch.no_grad():
        for row in spread(rows, passages):
            ids = torch.tensor([tokenizer.encode(f"{row['title']} {row['text']}").ids])
            found = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            states.append(found.numpy())
    return states


def split(memories: list[Array], fitted: int, tried: int) -> tuple[Array, Array]:
    """Tokens to fit to, of four passages in five, and tokens of the fifth to try."""
    random = np.random.default_rng(0)

    def some(rows: Array, count: int) -> Array:
        return rows[np.sort(random.permutation(len(rows))[:count])]

    others = [memory for number, memory in enumerate(memories) if number % 5]
    return some(np.concatenate(others), fitted), some(np.concatenate(memories[::5]), tried)


def ours(name: str) -> Tried:
    """One of our codecs."""

    def tried(fitted: Array, rows: Array) -> Array:
        codec = open_codec(name, rows.shape[1], fit_codec(name, rows.shape[1], [fitted]), subject=name)
        return codec.decode(codec.encode(rows))

    return tried


def faiss_product(share: int, *, rotated: bool) -> Tried:
    """faiss's product quantisation, a byte for `share` channels; `rotated`: OPQ."""

    def tried(fitted: Array, rows: Array) -> Array:
        import faiss

        width = rows.shape[1]
        faiss.omp_set_num_threads(1)
        rotation = np.eye(width, dtype=np.float32)
        if rotated:
            matrix = faiss.OPQMatrix(width, width // share)
            matrix.niter = OPQ_ITERATIONS
            matrix.train(fitted)
            rotation = faiss.vector_to_array(matrix.A).reshape(width, width)
        product = faiss.ProductQuantizer(width, width // share, 8)
        product.train(np.ascontiguousarray(fitted @ rotation.T))
        return product.decode(product.compute_codes(np.ascontiguousarray(rows @ rotation.T))) @ rotation

    return tried


def with_gain(inner: Tried) -> Tried:
    """The same on tokens divided by their gains, one byte more."""

    def tried(fitted: Array, rows: Array) -> Array:
        scale = np.median(np.linalg.norm(fitted, axis=1)).astype(np.float32)
        gains, own = (GAINS[gain_codes(part / scale)][:, None] for part in (fitted, rows))
        return inner(fitted / scale / gains, rows / scale / own) * own * scale

    return tried


def contenders(ratio: str, width: int) -> dict[str, tuple[float, Tried]]:
    """Bytes a token and what is tried, by name."""
    share = SHARES[ratio]
    found = {name: (codec_layout(name, width).bytes_per_token, ours(name)) for name in OURS[ratio]}
    for label, rotated in (("plain", False), ("OPQ", True)):
        if rotated and ratio == "2x":
            continue  # a byte for each channel: there is nothing to share between them
        product = faiss_product(share, rotated=rotated)
        found[label] = (width // share, product)
        found[f"{label}, gain"] = (width // share + 1, with_gain(product))
    return found


def snr_db(rows: Array, back: Array) -> tuple[float, float]:
    """Of all energy, and with every token counting alike, dB."""
    noise = np.square(back.astype(np.float64) - rows).sum(-1)
    signal = np.square(rows, dtype=np.float64).sum(-1)
    some = signal > 0
    return (
        round(float(10 * np.log10(signal.sum() / noise.sum())), 2),
        round(float(-10 * np.log10((noise[some] / signal[some]).mean())), 2),
    )


def measure(memories: list[Array], fitted: int, tried: int, ratios: list[str]) -> dict[str, Any]:
    """Figures of every contender at some ratios."""
    sample, rows = split(memories, fitted, tried)
    width = rows.shape[1]
    found: dict[str, Any] = {"width": width, "fitted_tokens": len(sample), "tried_tokens": len(rows)}
    for ratio in ratios:
        found[ratio] = {}
        for name, (size, contender) in contenders(ratio, width).items():
            sys.stderr.write(f"{ratio} {name}\n")
            started = time.process_time()
            whole, alike = snr_db(rows, contender(sample, rows))
            found[ratio][name] = {
                "bytes": size, "snr_db": whole, "snr_db_of_tokens_alike": alike,
                "cpu_seconds": round(time.process_time() - started, 1),
            }
    return found


def main() -> None:
    """Measure, printing what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", action="append", nargs=3, default=[], metavar=("NAME", "BUNDLE", "STORE"), help="a store in fp16",
    )
    parser.add_argument("--encoder", type=Path, help="directory of a sentence encoder in the layout of transformers")
    parser.add_argument("--corpus", type=Path, help="its passages: lines of title and text")
    parser.add_argument("--passages", type=int, default=600, help="of that corpus")
    parser.add_argument("--fitted", type=int, default=8192, help="tokens to fit to")
    parser.add_argument("--tried", type=int, default=3000, help="tokens to try")
    parser.add_argument("--ratios", nargs="*", choices=SHARES, default=[*SHARES])
    parser.add_argument("--output", type=Path, required=True, help="JSON, with what it has of other memories")
    options = parser.parse_args()
    found = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    memories: dict[str, Callable[[], list[Array]]] = {
        name: partial(stored, Path(bundle), Path(store)) for name, bundle, store in options.store
    }
    if options.encoder:
        memories[options.encoder.name] = partial(sentence_states, options.encoder, options.corpus, options.passages)
    for name, read in memories.items():
        figures = measure(read(), options.fitted, options.tried, options.ratios)
        found[name] = found.get(name, {}) | {"date": datetime.now(UTC).date().isoformat(), **figures}
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
