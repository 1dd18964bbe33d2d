"""The files of a Hugging Face Whisper folder, written without torch and without transformers."""

from pathlib import Path

import numpy as np

from lengua.models.formats.ctranslate2 import hugging_face_tensors, read_variables
from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.files import read_json, write_bytes, write_json

END_ID, START_ID, TRANSLATE_ID, TRANSCRIBE_ID = 50257, 50258, 50358, 50359
START_OF_PREVIOUS_ID, NO_TIMESTAMPS_ID = 50361, 50363
TIMESTAMP_TOKENS = tuple(f"<|{step * 0.02:.2f}|>" for step in range(1501))


def write_model_folder(ct2_folder: Path, out: Path) -> None:
    """Write the full Hugging Face folder of the Whisper in `ct2_folder`: weights, configurations, tokenizer, processor.

    Needs neither torch nor transformers.
    """
    from safetensors.numpy import save_file

    variables = read_variables(ct2_folder / "model.bin")
    tensors = hugging_face_tensors(variables)
    save_file(
        {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()},
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    heads = int(variables["encoder/num_heads"])
    write_json(out / "config.json", model_config(tensors, heads))
    write_json(out / "generation_config.json", generation_config(read_json(ct2_folder / "config.json")))
    write_tokenizer(read_json(ct2_folder / "tokenizer.json"), out)
    write_feature_extractor(out, n_mels=tensors["model.encoder.conv1.weight"].shape[1])


def model_config(tensors: dict[str, np.ndarray], heads: int) -> dict:
    """Return config.json, its sizes read off the tensors."""
    embeddings = tensors["model.decoder.embed_tokens.weight"]
    feed_forward = tensors["model.encoder.layers.0.fc1.weight"].shape[0]
    sides = ("encoder", "decoder")
    layers = {s: sum(name.startswith(f"model.{s}.") and name.endswith(".fc1.bias") for name in tensors) for s in sides}
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": embeddings.shape[1],
        "vocab_size": embeddings.shape[0],
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "num_hidden_layers": layers["encoder"],
        **{f"{side}_layers": layers[side] for side in sides},
        **{f"{side}_attention_heads": heads for side in sides},
        **{f"{side}_ffn_dim": feed_forward for side in sides},
        "max_source_positions": tensors["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": tensors["model.decoder.embed_positions.weight"].shape[0],
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": "proj_out.weight" not in tensors,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": END_ID,
        "decoder_start_token_id": START_ID,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def generation_config(ct2: dict) -> dict:
    """Return generation_config.json from CTranslate2's: suppressed tokens, languages, alignment heads."""
    codes = list(LANGUAGE_NAMES)[: len(ct2["lang_ids"])]
    return {
        "alignment_heads": ct2["alignment_heads"],
        "begin_suppress_tokens": ct2["suppress_ids_begin"],
        "suppress_tokens": ct2["suppress_ids"],
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": END_ID,
        "decoder_start_token_id": START_ID,
        "prev_sot_token_id": START_OF_PREVIOUS_ID,
        "no_timestamps_token_id": NO_TIMESTAMPS_ID,
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": token for code, token in zip(codes, ct2["lang_ids"], strict=True)},
        "task_to_id": {"transcribe": TRANSCRIBE_ID, "translate": TRANSLATE_ID},
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }


def write_tokenizer(tokenizer: dict, out: Path) -> None:
    """Write tokenizer.json with the 1,501 timestamp tokens, vocab.json, merges.txt and tokenizer_config.json."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known = {token["content"] for token in tokenizer["added_tokens"]}
    tokenizer["added_tokens"] += [
        {"id": NO_TIMESTAMPS_ID + 1 + step, "content": content, **plain}
        for step, content in enumerate(TIMESTAMP_TOKENS)
        if content not in known
    ]
    write_json(out / "tokenizer.json", tokenizer)
    write_vocabulary(tokenizer, out)
    write_json(out / "tokenizer_config.json", _tokenizer_config(tokenizer["added_tokens"]))


def write_vocabulary(tokenizer: dict, out: Path) -> None:
    """Write vocab.json and merges.txt, the older form of a tokenizer.json."""
    write_json(out / "vocab.json", tokenizer["model"]["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    write_bytes(out / "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode())


def _tokenizer_config(added: list[dict]) -> dict:
    end = "<|endoftext|>"
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in added}
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [t["content"] for t in added if t["special"] and t["content"] != end],
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 1024,
        "return_attention_mask": False,
    }


def for_transformers_4(tokenizer_config: dict) -> dict:
    """Return a tokenizer_config.json that transformers 4 opens, too: its name for the list of special tokens.

    transformers 5 writes `extra_special_tokens`, of which 4 expects a mapping; it still reads the older name.
    """
    tokens = tokenizer_config.get("extra_special_tokens")
    if not isinstance(tokens, list):
        return tokenizer_config
    others = {key: value for key, value in tokenizer_config.items() if key != "extra_special_tokens"}
    return others | {"additional_special_tokens": tokens}


def write_feature_extractor(out: Path, n_mels: int) -> None:
    """Write both processor files: transformers 5 reads the second, transformers 4 and faster-whisper the first."""
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": n_mels,
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "dither": 0.0,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    write_json(out / "preprocessor_config.json", {**extractor, "processor_class": "WhisperProcessor"})
    write_json(out / "processor_config.json", {"feature_extractor": extractor, "processor_class": "WhisperProcessor"})
