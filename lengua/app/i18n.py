"""The words of the page in each of its languages: assets/app_es.toml, app_en.toml; another file adds a language.

Static text goes through Gradio's I18n, which the browser resolves (`text`); what a function answers is in the
language that the request prefers (`message`). Both take the browser's first language that the page has, else English. A
program that states no language is answered in Spanish.
"""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lengua.runtime.errors import RequestError
from lengua.runtime.files import ASSETS

if TYPE_CHECKING:
    import gradio as gr

FIRST_LANGUAGE, FALLBACK_LANGUAGE = "es", "en"


class Wording:
    """All sentences, by language and dotted key: `refusal.silent`.

    Raises:
        RequestError: a language lacks a key that another has.
    """

    def __init__(self, folder: Path = ASSETS):
        self.languages = {path.stem.removeprefix("app_"): _flat(path) for path in sorted(folder.glob("app_*.toml"))}
        missing = {key for one in self.languages.values() for key in self.languages[FIRST_LANGUAGE].keys() ^ one.keys()}
        if missing:
            found, do = f"these in some only: {', '.join(sorted(missing))}", "add them to lengua/assets/app_*.toml"
            raise RequestError("the same keys in every language of the page", found, do)

    @cached_property
    def i18n(self) -> "gr.I18n":
        """For launch(), and for the static text of components."""
        from gradio import I18n  # conversation and transcription work without a page

        return I18n(**self.languages)

    def text(self, key: str):
        """Return static text, which the browser puts into its language."""
        assert key in self.languages[FIRST_LANGUAGE], key
        return self.i18n(key)

    def message(self, request: "gr.Request | None", key: str, **values) -> str:
        """Return a sentence in the language of a request, with its values filled in."""
        return self.languages[self.language(request)][key].format(**values)

    def language(self, request: "gr.Request | None") -> str:
        """Return the code of the page's language for a request, by its Accept-Language."""
        header = request.headers.get("accept-language", "") if request is not None else ""
        if not header.strip():
            return FIRST_LANGUAGE
        wished, _ = max(map(_quality, header[:200].split(",")), key=lambda pair: pair[1])
        return wished if wished in self.languages else FALLBACK_LANGUAGE


def _flat(path: Path) -> dict[str, str]:
    """Return {"section.key": sentence} of a file of sections."""
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return {f"{name}.{key}": text for name, section in sections.items() for key, text in section.items()}


def _quality(part: str) -> tuple[str, float]:
    """Return (language code, quality) of one part of an Accept-Language: "es-MX;q=0.8" -> ("es", 0.8)."""
    tag, _, parameter = part.strip().partition(";")
    try:
        quality = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
    except ValueError:
        quality = 0.0
    return tag.split("-")[0].lower(), quality
