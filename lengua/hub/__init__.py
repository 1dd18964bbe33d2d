"""The Hugging Face Hub: what stands there, whether a token may, one commit for a whole folder, stores as data sets."""

from lengua.hub.asking import ask, explained, look_up, may_pass
from lengua.hub.stores import PushResult, private_because, push_store, store_card
from lengua.hub.tags import set_tag, tags_of
from lengua.hub.uploading import check_token, upload_folder

__all__ = [
    "PushResult",
    "ask",
    "check_token",
    "explained",
    "look_up",
    "may_pass",
    "private_because",
    "push_store",
    "set_tag",
    "store_card",
    "tags_of",
    "upload_folder",
]
