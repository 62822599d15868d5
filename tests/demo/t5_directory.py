"""A FiD as the T5 that it is: what `train --recipe demo-t5 --architecture fid` makes is written as tests/demo/t5.

    python -m tests.demo.t5_directory t5-fid tests/demo/t5
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import save_file

from glimmer_export.exporter.checkpoint import read_checkpoint

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SAME = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_decoder_layers", "feed_forward_proj",
    "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon", "tie_word_embeddings",
    "pad_token_id", "eos_token_id", "decoder_start_token_id",
)  # fmt: skip


def write_t5(checkpoint: Path, output: Path) -> None:
    """Write the FiD's weights, in the dtype that they have, in Hugging Face's layout.

    They are written as they are, not by transformers: its T5 would be made with one matrix for embedding and output
    projection, whatever its config says, and the embedding would be lost.
    """
    read = read_checkpoint(checkpoint)
    fields = {name: getattr(read.config, name) for name in SAME}
    config = {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True,
        "num_layers": read.config.num_live_layers, **fields,
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name.replace("live_encoder.", "encoder."): tensor for name, tensor in read.tensors.items()}
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    for name in TOKENIZER:
        shutil.copyfile(checkpoint / name, output / name)


if __name__ == "__main__":
    write_t5(Path(sys.argv[1]), Path(sys.argv[2]))
