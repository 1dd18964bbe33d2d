"""The web app inside a notebook, with its microphone, served by a child process.

    microphone("runs/es", "es")

The child does not block the notebook, and ends with the kernel, however that ends: its standard input is then at its
end. It listens on loopback alone; in Colab, the proxy leads there for whoever has the notebook open.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from lengua.notebook.colab import in_colab
from lengua.runtime.errors import LenguaError

APP_HOST, FRAME_HEIGHT_PX = "127.0.0.1", 720
APP_START_TIMEOUT_S = 180.0
"""How long the page may take to open: gradio and a model are loaded."""
APP_COMMAND = (sys.executable, "-c", "from lengua.notebook import app; app.run_tethered()")

_running: list[subprocess.Popen] = []


def microphone(model: str | Path, language: str = "es") -> str:
    """Show the app below the cell and return its address; a page that was opened before is closed.

    Raises:
        LenguaError: the app did not start; the message has the last line of its output.
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


def run_tethered() -> None:
    """Run the command line in this process until it ends or standard input does: the child's side."""
    from lengua.cli import main

    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main(sys.argv[1:]))


def end_with_input() -> None:
    """Wait for the end of standard input, then end the process."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock would be held when the interpreter ends by itself
        pass
    os._exit(0)


def _free_port() -> int:
    with socket.create_server((APP_HOST, 0)) as server:
        return server.getsockname()[1]


def _started(arguments: list[str], port: int) -> subprocess.Popen:
    """Start the app and wait until it answers; it ends when the pipe to its standard input is closed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*APP_COMMAND, *arguments], stdin=subprocess.PIPE, stdout=output, stderr=output)
        until = time.monotonic() + APP_START_TIMEOUT_S
        while time.monotonic() < until and process.poll() is None:
            if _answers(port):
                return process
            time.sleep(0.2)
        process.kill()
        process.stdin.close()
        process.wait()
        output.seek(0)
        last = (output.read().decode(errors="replace").strip().splitlines() or ["no output"])[-1]
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
