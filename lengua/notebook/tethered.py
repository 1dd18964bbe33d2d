"""`lengua` as a process that hangs on a cord: it ends when whoever started it lets go of its standard input, or dies.

python -m lengua.notebook.tethered app --model runs/es --port 7861
"""

import os
import sys
import threading

from lengua.cli import main


def end_with_input() -> None:
    """Wait for the end of standard input, then end the process."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock would be held when the interpreter ends by itself
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
