"""The inference program: record or upload speech, and read what was said. Run it by `python app.py` or `make app`.

GRADIO_SERVER_NAME and GRADIO_SERVER_PORT (or PORT) say where to listen; LENGUA_MODEL names the model.
"""

import os

from lengua.app import launch
from lengua.options import AppOptions

if __name__ == "__main__":
    port = os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT") or AppOptions.port
    launch(AppOptions(host=os.environ.get("GRADIO_SERVER_NAME", AppOptions.host), port=int(port)))
