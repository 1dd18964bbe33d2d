"""Run notebooks from top to bottom, with their options as they stand, and keep what their tagged cells show.

    python benchmarks/record_notebooks.py                               # all of them: make notebooks
    python benchmarks/record_notebooks.py --notebooks train.ipynb

Of cells tagged keep_output the outputs are kept, of no others, and no sound: recordings are not ours to hand on. Where
and when it ran, and with which options, stands in the notebook's metadata. A notebook that fails is left as it was.
"""

import ast
import base64
import datetime
import io
import re
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from harness import ROOT, run
from nbclient import NotebookClient
from PIL import Image

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes
from lengua.runtime.system import describe_hardware, git_commit

KEPT, PARAMETERS = "keep_output", "parameters"
SOUND = re.compile(r"<(audio|video)\b.*?</\1>", re.DOTALL)
COLOURS = 128
"""Of a kept picture: enough for a chart and a spectrogram, and a fraction of the bytes."""
SILENT = "<p><i>Run the cell to listen.</i></p>"
NOTEBOOKS = (
    Path("train.ipynb"),
    Path("notebooks/spanish_fine_tune_whisper.ipynb"),
    Path("notebooks/swedish_fine_tune_whisper.ipynb"),
    Path("notebooks/error_analysis.ipynb"),
)
PLACES = (str(ROOT), str(Path.home()))
"""What a reader elsewhere has no use for, and what is nobody's business."""


@dataclass(frozen=True)
class Options:
    """Record notebooks: their outputs, as far as they are tagged to be kept."""

    notebooks: tuple[Path, ...] = NOTEBOOKS
    """Which ones, in this order: the last one looks at a run of those before."""


def main(options: Options) -> None:
    """Run and record each; what is recorded already stays when a later one fails."""
    for path in options.notebooks:
        notebook = nbformat.read(ROOT / path, as_version=4)
        start = time.perf_counter()
        how = {"kernel_name": "python3", "resources": {"metadata": {"path": str((ROOT / path).parent)}}}
        done = NotebookClient(notebook, timeout=None, **how).execute()
        minutes = (time.perf_counter() - start) / 60
        write_bytes(ROOT / path, nbformat.writes(recorded(done, minutes)).encode() + b"\n")
        print(f"{path}: {minutes:.1f} min, {(ROOT / path).stat().st_size / 1000:.0f} kB")


def recorded(notebook, minutes: float):
    """Return an executed notebook as it is kept.

    Raises:
        LenguaError: what would be kept names a place of this machine.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        keep = KEPT in cell.metadata.get("tags", [])
        cell.outputs = [silenced(output) for output in cell.outputs if keep and output.get("name") != "stderr"]
        cell.execution_count = cell.execution_count if keep else None
        if named := [place for place in PLACES if place in str(cell.outputs)]:
            do = "print a relative path, or take keep_output off"
            raise LenguaError("outputs that name no place of this machine", f"{named[0]} after {cell.source!r}", do)
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["lengua"] = {
        "date": datetime.date.today().isoformat(),
        "commit": git_commit(),
        "hardware": describe_hardware(),
        "minutes": round(minutes, 1),
        "parameters": parameters(notebook),
    }
    return notebook


def silenced(output):
    """Return an output without sound, its pictures small."""
    data = output.get("data", {})
    for kind in [kind for kind in data if kind.startswith(("audio/", "video/"))]:
        del data[kind]
    if "text/html" in data:
        data["text/html"] = SOUND.sub(SILENT, data["text/html"])
    if "image/png" in data:
        data["image/png"] = smaller(data["image/png"])
    return output


def smaller(png: str) -> str:
    """Return a PNG in base64 with few colours, if that is smaller."""
    picture, made = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return min(png, base64.b64encode(made.getvalue()).decode(), key=len)


def parameters(notebook) -> dict:
    [cell] = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


if __name__ == "__main__":
    run(main, Options)
