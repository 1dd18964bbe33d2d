"""Language names: what people type, what Common Voice calls it, and Whisper's token."""

import difflib
import re
import unicodedata

from lengua.runtime.errors import RequestError

# Whisper's languages in the order of their token ids; the first 99 are whisper-base's, `yue` came with large-v3.
# Source: the language table of the Whisper release (openai/whisper, tokenizer.py).
LANGUAGE_NAMES = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean",
    "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan",
    "nl": "dutch", "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi",
    "fi": "finnish", "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay",
    "cs": "czech", "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin",
    "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian",
    "lv": "latvian", "bn": "bengali", "sr": "serbian", "az": "azerbaijani", "sl": "slovenian", "kn": "kannada",
    "et": "estonian", "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian", "sw": "swahili",
    "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala", "km": "khmer", "sn": "shona",
    "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan", "ka": "georgian", "be": "belarusian",
    "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao",
    "uz": "uzbek", "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk",
    "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan", "tl": "tagalog",
    "mg": "malagasy", "as": "assamese", "tt": "tatar", "haw": "hawaiian", "ln": "lingala", "ha": "hausa",
    "ba": "bashkir", "jw": "javanese", "su": "sundanese", "yue": "cantonese",
}  # fmt: skip

# Common Voice locales whose first subtag is not Whisper's code.
LOCALE_LANGUAGES = {"nb-NO": "no", "nn-NO": "nn", "fil": "tl", "zh-HK": "yue", "zh-TW": "zh", "jv": "jw"}


def _plain(name: str) -> str:
    """Return a name in small letters without accents, as people type it."""
    decomposed = unicodedata.normalize("NFKD", name.strip().lower().replace("_", "-"))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


# What their speakers call them, and other names in use.
OTHER_NAMES = {
    "castellano": "es", "español": "es", "castilian": "es", "català": "ca", "valencià": "ca", "valencian": "ca",
    "galego": "gl", "euskara": "eu", "svenska": "sv", "norsk": "no", "bokmål": "no", "dansk": "da", "suomi": "fi",
    "íslenska": "is", "deutsch": "de", "nederlands": "nl", "flemish": "nl", "français": "fr", "italiano": "it",
    "português": "pt", "română": "ro", "moldovan": "ro", "polski": "pl", "čeština": "cs", "slovenčina": "sk",
    "magyar": "hu", "hrvatski": "hr", "srpski": "sr", "slovenščina": "sl", "shqip": "sq", "türkçe": "tr",
    "latviešu": "lv", "lietuvių": "lt", "eesti": "et", "русский": "ru", "українська": "uk", "български": "bg",
    "ελληνικά": "el", "cymraeg": "cy", "malti": "mt", "kiswahili": "sw", "bahasa indonesia": "id", "melayu": "ms",
    "tiếng việt": "vi", "filipino": "tl", "farsi": "fa", "mandarin": "zh", "中文": "zh", "普通话": "zh", "日本語": "ja",
    "한국어": "ko", "العربية": "ar", "עברית": "he", "हिन्दी": "hi", "haitian": "ht", "lëtzebuergesch": "lb",
    "pushto": "ps", "panjabi": "pa", "sinhalese": "si", "burmese": "my",
}  # fmt: skip
CODES_BY_NAME = {english: code for code, english in LANGUAGE_NAMES.items()}
CODES_BY_NAME |= {_plain(name): code for name, code in (OTHER_NAMES | LOCALE_LANGUAGES).items()}


def language_code(name: str) -> str:
    """Return Whisper's code for a code, a name in English or in the language, or a locale: "sv-SE", "Español" -> "es".

    Raises:
        RequestError: Whisper does not know the language; the nearest names are in the message.
    """
    plain = _plain(name)
    first = re.split("[-,(]", plain)[0].strip()  # es-419, "spanish (mexico)"
    for candidate in (CODES_BY_NAME.get(plain), plain, first, CODES_BY_NAME.get(first)):
        if candidate in LANGUAGE_NAMES:
            return candidate
    near = difflib.get_close_matches(plain, [*CODES_BY_NAME, *LANGUAGE_NAMES], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "give a code such as es or a name such as spanish"
    raise RequestError("one of Whisper's 100 languages", repr(name), hint)
