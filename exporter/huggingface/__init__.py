"""Glimmer checkpoints in transformers: importing this package registers them with its Auto classes.

    import glimmer_export.exporter.huggingface
    from transformers import AutoModel

    model = AutoModel.from_pretrained("checkpoint")
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

from glimmer_export.exporter.huggingface.configuration import GlimmerConfig
from glimmer_export.exporter.huggingface.modeling import GlimmerEncoderOutput, GlimmerForConditionalGeneration
from glimmer_export.exporter.training.loss import LossSettings

__all__ = ["GlimmerConfig", "GlimmerEncoderOutput", "GlimmerForConditionalGeneration", "LossSettings"]

AutoConfig.register(GlimmerConfig.model_type, GlimmerConfig, exist_ok=True)
AutoModel.register(GlimmerConfig, GlimmerForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(GlimmerConfig, GlimmerForConditionalGeneration, exist_ok=True)
AutoTokenizer.register(GlimmerConfig, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)
