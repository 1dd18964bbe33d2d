"""A run -> a folder to hand on -> the Hub: the checkpoint in the forms that programs open, and a card that is true.

    lengua publish runs/spanish --out export --to owner/whisper-base-es --space owner/whisper-spanish-conversation

formats -> the same clips in every program (parity) -> card -> one commit with a tag (upload) -> the Space beside it.
The folder is written whole or not at all.
"""

from lengua.publishing.publish import PublishResult, publish

__all__ = ["PublishResult", "publish"]
