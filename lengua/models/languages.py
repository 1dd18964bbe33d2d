"""Language names: what people type, what Common Voice calls it, and Whisper's token."""

import difflib

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


def language_code(name: str) -> str:
    """Return Whisper's code for a code, an English name or a Common Voice locale: "sv-SE", "Swedish" -> "sv".

    Raises:
        RequestError: Whisper does not know the language; the nearest names are in the message.
    """
    if name in LOCALE_LANGUAGES:
        return LOCALE_LANGUAGES[name]
    lowered = name.strip().lower()
    by_name = {english: code for code, english in LANGUAGE_NAMES.items()}
    for candidate in (lowered, by_name.get(lowered), lowered.partition("-")[0]):
        if candidate in LANGUAGE_NAMES:
            return candidate
    near = difflib.get_close_matches(lowered, [*by_name, *LANGUAGE_NAMES], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "give a code such as es or a name such as spanish"
    raise RequestError("one of Whisper's 100 languages", repr(name), hint)
