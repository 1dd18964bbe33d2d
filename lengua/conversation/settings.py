"""What a conversation is about: situation, level, variety. Codes, not labels: the page has words for them."""

from dataclasses import dataclass

from lengua.text import strip_marks

SITUATIONS = ("free", "interview", "cafe", "doctor", "rent", "airport", "market", "street", "phone")
LEVELS = ("beginner", "intermediate", "advanced")
VARIETIES = {
    "es": ("MX", "AR", "ES", "CO", "CL", "PE"),
    "en": ("US", "GB"),
    "pt": ("BR", "PT"),
    "fr": ("FR", "CA"),
}
"""By language, as codes of countries; a language that is not here has one variety, without a code."""


@dataclass(frozen=True)
class Setting:
    """The choices of a visitor. They come from a page or a program: what is unknown becomes the default of its kind."""

    situation: str = "free"
    """One of SITUATIONS; marks and case do not count: "café" is "cafe"."""
    level: str = "intermediate"
    """One of LEVELS."""
    variety: str = ""
    """One of VARIETIES of the language; none: its first."""
    language: str = "es"
    """Whisper's code of the language that is spoken."""

    def __post_init__(self):
        situation, level = (strip_marks(str(code)).strip().lower() for code in (self.situation, self.level))
        variety, known = str(self.variety).strip().upper(), varieties(self.language)
        object.__setattr__(self, "situation", situation if situation in SITUATIONS else SITUATIONS[0])
        object.__setattr__(self, "level", level if level in LEVELS else "intermediate")
        object.__setattr__(self, "variety", variety if variety in known else known[0])


def varieties(language: str) -> tuple[str, ...]:
    """Return the codes of a language's varieties, the first of which is the default; ("",) where none are known."""
    return VARIETIES.get(language, ("",))
