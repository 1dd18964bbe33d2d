"""The voices of the sample: which Debian packages hold them, and where in those stands a clip's text.

    for clip in allison.clips(folder): ...      # every recording, the useless ones too

A further language is a further Voice here and, where its texts need it, a table for `spelling`.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SOUNDS = "usr/share/asterisk/sounds"
STAMPS = "usr/share/tuxpaint/stamps"
COPYRIGHT = r"/doc/.*/copyright$"


@dataclass(frozen=True)
class Clip:
    """A recording as its package has it. `name` is its path among the voice's recordings, without the suffix."""

    name: str
    audio: Path
    text: str | None
    """None where the package has no text for it."""


@dataclass(frozen=True)
class Voice:
    """One speaker of the sample, one language, and how to read her packages."""

    name: str
    language: str
    packages: tuple[str, ...]
    wanted: str
    """A regular expression over paths in the packages: the recordings, the texts, the copyright."""
    read: Callable[[Path, str], Iterator[Clip]]
    licence: str
    attribution: str
    probe: bool = False
    """Whether all of it is for testing: a language to see that a model keeps, not one to learn from."""

    def clips(self, folder: Path) -> list[Clip]:
        """Return every recording below the folder that the packages were unpacked into, by name."""
        return sorted(self.read(folder, self.language), key=lambda clip: clip.name)


def asterisk_clips(folder: Path, language: str) -> Iterator[Clip]:
    """Yield telephone prompts. Some keys of the text differ from the file in case: `digits/1f` is digits/1F.g722."""
    texts = prompts(folder / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")
    for audio in (folder / SOUNDS).rglob("*.g722"):
        name = audio.relative_to(folder / SOUNDS).with_suffix("").as_posix().partition("/")[2]
        yield Clip(name, audio, texts.get(name.lower()))


def prompts(path: Path) -> dict[str, str]:
    """Read `key: text` lines; `;` opens a comment. The first of two equal keys counts: the second is a slip."""
    texts: dict[str, str] = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts.setdefault(key.strip().lower(), text.strip())
    return texts


def tuxpaint_clips(folder: Path, language: str) -> Iterator[Clip]:
    """Yield descriptions of Tux Paint's stamps: NAME_desc_es.ogg, its text in the line `es.utf8=` of NAME.txt."""
    ending = f"_desc_{language}.ogg"
    for audio in (folder / STAMPS).rglob(f"*{ending}"):
        described = audio.with_name(audio.name.removesuffix(ending))
        name = described.relative_to(folder / STAMPS).as_posix()
        yield Clip(name, audio, stamp_text(described.with_name(f"{described.name}.txt"), language))


def stamp_text(path: Path, language: str) -> str | None:
    """Return what the line `es.utf8=...` of a stamp's description says."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    key = f"{language}.utf8="
    return next((line.removeprefix(key).strip() for line in lines if line.startswith(key)), None)


def asterisk_voice(name: str, language: str, licence: str, attribution: str, probe: bool = True) -> Voice:
    """Return the voice of Asterisk's telephone prompts in one language."""
    packages = (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}")
    wanted = rf"\.g722$|core-sounds-{language}\.txt\.gz$|{COPYRIGHT}"
    return Voice(name, language, packages, wanted, asterisk_clips, licence, attribution, probe)


allison = asterisk_voice(
    name="allison",
    language="es",
    licence="CC-BY-SA-3.0",
    attribution="Allison Smith (voice), Asterisk core sounds in Spanish, financed by Digium, Inc.",
    probe=False,
)
estefania = Voice(
    name="estefania",
    language="es",
    packages=("tuxpaint-stamps-default",),
    wanted=rf"_desc_es\.ogg$|/stamps/.*\.txt$|{COPYRIGHT}",
    read=tuxpaint_clips,
    licence="GPL-2.0-or-later",
    attribution="Estefanía Ortiz (voice), the Tux Paint stamps by Bill Kendrick and contributors",
)
june = asterisk_voice(
    name="june",
    language="fr",
    licence="CC-BY-SA-3.0",
    attribution="June Wallack (voice), Clod Patry, Kristopher Lalletti and June Wallack (translation), Asterisk core "
    "sounds in French, financed by Digium, Inc., Unlimitel and BGM Informatique",
)
carlo = asterisk_voice(
    name="carlo",
    language="it",
    licence="CC-BY-3.0",
    attribution="Carlo Flora (voice), Silvia Petrin (translation), Asterisk core sounds in Italian",
)
ivrvoice = asterisk_voice(
    name="ivrvoice",
    language="ru",
    licence="CC-BY-3.0",
    attribution="Maxim Topal, ivrvoice.ru, Asterisk core sounds in Russian",
)

VOICES = (allison, estefania, june, carlo, ivrvoice)
