"""The system prompt of a Setting: fixed text of data/prompts.toml. What a visitor says is never in it.

For Spanish it is in Spanish and knows how each country speaks; for any other language it is plain, and in English.
"""

import tomllib
from functools import cache

from lengua.conversation.settings import Setting
from lengua.files import ASSETS
from lengua.languages import NAMES

TEXTS = ASSETS / "prompts.toml"
ANY = "any"


def system_prompt(setting: Setting) -> str:
    """Return what a model is told before the first turn; each paragraph is one line."""
    texts = _texts(setting.language)
    whole = texts["prompt"].format(
        language=NAMES.get(setting.language, setting.language).title(),
        situation=texts["situation"][setting.situation].strip(),
        level=texts["level"][setting.level].strip(),
        variety=texts["variety"].get(setting.variety, "").rstrip(),
    )
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in whole.split("\n\n"))


def opening(setting: Setting) -> str:
    """Return what stands for the visitor's turn where they want the other side to begin."""
    return _texts(setting.language)["opening"]


@cache
def _texts(language: str) -> dict:
    texts = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    return texts.get(language, texts[ANY])
