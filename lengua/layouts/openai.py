"""OpenAI's names of a Hugging Face Whisper's tensors, which whisper.cpp uses, too: the same tensors, other names."""

import re

RENAMED = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"encoder_attn\.", "cross_attn."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"self_attn\.", "attn."),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"decoder\.embed_tokens", "decoder.token_embedding"),
)
"""Each in turn, as in the conversion script of transformers, the other way round."""


def renamed(name: str) -> str:
    """Return OpenAI's name of a tensor."""
    for pattern, its_own in RENAMED:
        name = re.sub(pattern, its_own, name)
    return name
