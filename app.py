"""The inference program: speak, and read what was said, or be answered. Run it by `python app.py` or `make app`.

GRADIO_SERVER_NAME and GRADIO_SERVER_PORT (or PORT) say where to listen; LENGUA_MODEL names the model.
"""

import os
import sys

from lengua.cli import main

if __name__ == "__main__":
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT") or "7860"
    sys.exit(main(["app", "--host", host, "--port", port]))
