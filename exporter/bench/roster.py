"""Who may be measured beside ours: forms of answering, and the engines and precisions that each runs in.

A peer's name is its form, then its engine and precision where they are not the form's first: `paper-form`,
`paper-form-int8`, `optimum-fid-k5-openvino-bf16`. Ours have no name of a form: `int8`, `openvino-bf16`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.runtime.contract import OptionError

__all__ = [
    "CROSS_ENCODER", "CTRANSLATE2", "ENGINES", "HF_FID", "LANGUAGE_MODEL", "OPENVINO", "OPTIMUM_FID", "ORT", "OURS",
    "PAPER_FORM", "PEER_NAMES", "RERANK_LAYERS", "STORED_STATES", "TORCH", "Peer", "parse_peers",
]  # fmt: skip

OURS = "ours"
PAPER_FORM = "paper-form"
RERANK_LAYERS = "rerank-layers"
HF_FID, OPTIMUM_FID = "hf-fid", "optimum-fid"
LANGUAGE_MODEL, STORED_STATES = "llm", "llm-kv"
CROSS_ENCODER = "cross-encoder"

ORT, OPENVINO, TORCH, CTRANSLATE2 = "onnxruntime", "openvino", "torch", "ctranslate2"
ENGINES = {ORT: "ONNX Runtime", OPENVINO: "OpenVINO", TORCH: "torch", CTRANSLATE2: "CTranslate2"}
"""Packages that run a contender -> what people call them."""
OPENVINO_TOO = ((ORT, "fp32"), (ORT, "int8"), (OPENVINO, "fp32"), (OPENVINO, "bf16"))
OUR_ENGINES = (*OPENVINO_TOO, (OPENVINO, "int8"))
RUNS = {
    OURS: OUR_ENGINES,
    PAPER_FORM: OUR_ENGINES,
    RERANK_LAYERS: OUR_ENGINES,
    HF_FID: ((TORCH, "fp32"), (TORCH, "bf16")),
    OPTIMUM_FID: OPENVINO_TOO,
    LANGUAGE_MODEL: ((CTRANSLATE2, "int8"),),
    STORED_STATES: ((CTRANSLATE2, "int8"),),
    CROSS_ENCODER: OPENVINO_TOO,
}
"""Engine and precision of each form; the first is meant where a name has neither."""
SESSION_FORMS = (OURS, PAPER_FORM, RERANK_LAYERS)
"""Those that are a bundle and a store of ours."""
COUNT = r"(?P<number>[1-9]\d{0,3})"
STEMS = {
    OURS: "",
    PAPER_FORM: f"-{PAPER_FORM}",
    RERANK_LAYERS: rf"-{RERANK_LAYERS}-{COUNT}",
    HF_FID: rf"-{HF_FID}-k{COUNT}",
    OPTIMUM_FID: rf"-{OPTIMUM_FID}-k{COUNT}",
    LANGUAGE_MODEL: rf"-{LANGUAGE_MODEL}-k{COUNT}",
    STORED_STATES: rf"-{STORED_STATES}-k{COUNT}",
    CROSS_ENCODER: f"-{CROSS_ENCODER}",
}
RUN = rf"(?:-(?P<engine>{OPENVINO}))?(?:-(?P<precision>bf16|int8))?"
PEER_NAMES = (
    "int8, openvino, openvino-bf16 or openvino-int8 (ours); paper-form and rerank-layers-N, alone or with -int8, "
    "-openvino, -openvino-bf16 or -openvino-int8; hf-fid-kN or hf-fid-kN-bf16; optimum-fid-kN and cross-encoder, alone "
    "or with "
    "-int8, -openvino or -openvino-bf16; llm-kN, llm-kv-kN"
)


@dataclass(frozen=True)
class Peer:
    """One contender beside ours.

    `form` is how it answers, `engine` the package that runs it, `precision` that of its graphs or of what the engine
    computes them in. `number` is what its name has: passages that are read, or layers of stage A; None if the bench's
    own k and m hold. `key` is the name in reports.
    """

    name: str
    form: str
    engine: str
    precision: str
    number: int | None

    @property
    def key(self) -> str:
        """The name as a JSON key."""
        return self.name.replace("-", "_")

    @property
    def num_passages(self) -> int:
        """Passages that its name asks for; 0 if it asks for none."""
        return self.number or 0 if self.form != RERANK_LAYERS else 0

    @property
    def is_ours(self) -> bool:
        """Whether it is a bundle of ours in some form."""
        return self.form in SESSION_FORMS


def parse_peers(names: Sequence[str]) -> tuple[Peer, ...]:
    """Peers by name, in order; raises OptionError for one that is unknown or named twice."""
    peers: list[Peer] = []
    for name in names:
        peer = _peer(name)
        if peer is None:
            raise OptionError(
                "--peers", expected=f"{PEER_NAMES}; with N passages or layers; or none", found=repr(name),
                fix="choose among these, with commas between them",
            )
        if any(other.name == name for other in peers):
            raise OptionError("--peers", expected="each peer once", found=f"{name} twice", fix="name it once")
        peers.append(peer)
    return tuple(peers)


def _peer(name: str) -> Peer | None:
    for form, stem in STEMS.items():
        match = re.fullmatch(stem + RUN, f"-{name}", re.ASCII)
        if match is None:
            continue
        found = match.groupdict()
        first_engine, first_precision = RUNS[form][0]
        engine = found["engine"] or first_engine
        precision = found["precision"] or (first_precision if engine == first_engine else "fp32")
        if (engine, precision) in RUNS[form]:
            return Peer(name, form, engine, precision, int(found["number"]) if found.get("number") else None)
    return None
