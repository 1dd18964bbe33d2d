"""Model folders that were copied halfway, told before anybody converts or loads them."""

import json
import struct
from pathlib import Path

from lengua.errors import RequestError

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file, by its format."""


def require_whole(weights: Path) -> None:
    """Refuse a safetensors file that is shorter, or longer, than its own header says.

    Eight bytes tell how long the header is; it tells where each tensor lies behind it (the format of safetensors).

    Raises:
        RequestError: it is cut off, or is no such file.
    """
    size = weights.stat().st_size
    try:
        with open(weights, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
        ends = [told["data_offsets"][1] for name, told in tensors.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError("a whole model.safetensors", f"no readable header in {weights}", "copy it again") from error
    if size != expected:
        wanted = f"a model.safetensors of {expected} bytes"
        raise RequestError(wanted, f"{size} in {weights.parent}", "copy it again")
