"""lengua: teach Whisper your mother tongue on the machine you have, then talk to it."""

__version__ = "0.1.0"
