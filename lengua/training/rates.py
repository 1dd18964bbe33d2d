"""The learning rate of those who name none: by the size of the base.

    rate_of(options, d_model=512)     # 2.5e-5 for whisper-base

Jong Wook Kim of OpenAI advises a fortieth of the rate that a Whisper was pretrained with (Whisper paper, table 17), as
the README of vasistalodagala/whisper-finetune quotes him. CoRal and HiTZ train at nearly the same rates.
"""

from lengua.errors import RequestError
from lengua.options import TrainOptions

BY_SIZE = {384: 3.75e-5, 512: 2.5e-5, 768: 1.25e-5, 1024: 6.25e-6, 1280: 5e-6}
"""Peak of the schedule by d_model: tiny, base, small, medium, large (and turbo)."""
LORA_TIMES, LORA_MOST = 10, 1e-4
"""Thin matrices that begin at zero want a higher rate. 1e-4 is the published rate that holds for all sizes; at 1e-3
runs are known to diverge."""
HIGHEST = 1e-2
"""Nothing good was ever trained above, and 1e5 for 1e-5 is soon typed."""


def rate_of(options: TrainOptions, d_model: int) -> float:
    """Return the learning rate that was asked for, else that of the nearest size.

    Raises:
        RequestError: one at which nothing can be learned.
    """
    rate = options.learning_rate
    if rate is None:
        usual = BY_SIZE[min(BY_SIZE, key=lambda size: abs(size - d_model))]
        return min(LORA_TIMES * usual, LORA_MOST) if options.learn == "lora" else usual
    if not 0 < rate <= HIGHEST:
        found = f"{rate:g}"
        raise RequestError(f"a --learning-rate above 0, at most {HIGHEST:g}", found, "leave it out: the base decides")
    return rate
