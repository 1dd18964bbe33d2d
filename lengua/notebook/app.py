"""The app's page inside a notebook, with its microphone, served by a process of its own.

    microphone("runs/es", "es")

The page does not hold up the notebook, and it ends with the kernel, however that ends. Nothing is opened to the
network: in Colab its proxy leads there, for whoever has the notebook open alone.
"""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lengua.notebook.colab import in_colab
from lengua.runtime.errors import LenguaError

APP_HOST, FRAME_HEIGHT_PX = "127.0.0.1", 720
APP_START_TIMEOUT_S = 180.0
"""How long the page may take to open: gradio and a model are loaded."""
APP_COMMAND = (sys.executable, "-m", "lengua.notebook.tethered")

_running: list[subprocess.Popen] = []


def microphone(model: str | Path, language: str = "es") -> str:
    """Show the app below the cell and return its address; a page that was opened before is closed.

    Raises:
        LenguaError: it did not come up; the message has its last words.
    """
    close()
    port = _free_port()
    _running.append(_started(["app", "--model", str(model), "--language", language, "--port", str(port)], port))
    _show(port)
    return f"http://{APP_HOST}:{port}"


def close() -> None:
    """Close the page, if there is one."""
    while _running:
        process = _running.pop()
        process.stdin.close()
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.create_server((APP_HOST, 0)) as found:
        return found.getsockname()[1]


def _started(arguments: list[str], port: int) -> subprocess.Popen:
    """Start the app and wait until it answers. Its standard input is the cord that it hangs on."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*APP_COMMAND, *arguments], stdin=subprocess.PIPE, stdout=said, stderr=said)
        until = time.monotonic() + APP_START_TIMEOUT_S
        while time.monotonic() < until and process.poll() is None:
            if _answers(port):
                return process
            time.sleep(0.2)
        process.kill()
        process.stdin.close()
        process.wait()
        said.seek(0)
        last = (said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise LenguaError(f"the app within {APP_START_TIMEOUT_S:.0f} s", last, "try `lengua app` in a terminal")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((APP_HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _show(port: int) -> None:
    from IPython.display import IFrame, display

    if in_colab():
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, height=str(FRAME_HEIGHT_PX))
        return
    display(IFrame(f"http://{APP_HOST}:{port}", "100%", FRAME_HEIGHT_PX, extras=['allow="microphone"']))
