"""Other programs on clips, as their users call them: greedily, padded to 30 s, without timestamps; long recordings by
each program's own defaults.

Imports nothing of lengua, and so runs as a script, too: in a process of its own, with packages of its own.

    python -P lengua/publishing/programs.py transformers FOLDER CLIPS.npz es TEXTS.json
    python -P lengua/publishing/programs.py whisper.cpp ggml-model.bin CLIPS.npz es TEXTS.json
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np

PARITY_MAX_TOKENS = 220
"""As many as whisper.cpp writes for a window: a text in circles is equally long everywhere."""


def open_transformers(folder: str, language: str | None, most: int | None = PARITY_MAX_TOKENS):
    """Return a function samples -> text of transformers' pipeline, in float32.

    Args:
        language: None where the checkpoint's generation_config.json names it.
        most: tokens of a clip; None for recordings of any length, window after window, with timestamps and no beams.
    """
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recognise = pipeline("automatic-speech-recognition", model=folder, dtype=torch.float32, device=device)
    asked = {"language": language, "task": "transcribe"} if language else {}
    asked |= {"num_beams": 1} | ({} if most is None else {"max_new_tokens": most})
    how = {"return_timestamps": True} if most is None else {}

    def hear(samples) -> str:
        return recognise({"raw": samples, "sampling_rate": 16_000}, generate_kwargs=dict(asked), **how)["text"]

    return hear


def open_whisper_cpp(model: str, language: str, most: int | None = PARITY_MAX_TOKENS):
    """Return a function samples -> text of whisper.cpp, by pywhispercpp; `most` as above."""
    from pywhispercpp.model import Model

    asked = {"print_progress": False, "print_realtime": False}
    if most is not None:
        asked |= {"no_timestamps": True, "max_tokens": most}
        asked |= {"temperature_inc": 0.0, "no_speech_thold": 1.0}  # no second try at a higher temperature, no silencing
    recognise = Model(model, language=language, **asked)
    return lambda samples: " ".join(segment.text for segment in recognise.transcribe(samples))


PARITY_PROGRAMS = {
    "transformers": (open_transformers, "transformers"),
    "whisper.cpp": (open_whisper_cpp, "pywhispercpp"),
}
"""By name: how to open it, and the package whose version it has."""


def transcribe_clips(hear, clips) -> dict:
    """Return the texts of the clips, and how many seconds they took."""
    start = time.perf_counter()
    texts = [hear(samples).strip() for samples in clips]
    return {"texts": texts, "seconds": time.perf_counter() - start}


def main(program: str, model: str, clips: str, language: str, out: str, most: str = str(PARITY_MAX_TOKENS)) -> None:
    """Write the texts of all clips of an .npz, in the order of their numbers; `most` is empty for long recordings."""
    opened, package = PARITY_PROGRAMS[program]
    with np.load(clips) as file:
        samples = [file[f"arr_{number}"] for number in range(len(file.files))]
    result = transcribe_clips(opened(model, language or None, int(most) if most else None), samples)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result | {"version": version(package)}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
