"""A conversation as a file: Markdown, JSON, or a zip of both with the recordings. Its text stays text.

    conversation_as_markdown(turns, setting, responder.name)
    write_conversation_zip(Path("conversation.zip"), turns, setting, responder.name)

The browser saves Markdown and JSON; the server writes the zip, into a folder of the visit, which goes with it.
"""

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from lengua.app.chat.history import Setting, Turn

MAX_ZIP_AUDIO_BYTES = 256 * 2**20
"""Of all recordings in a zip: what is over it is left out, the last first, and reported."""
MARKDOWN_SPECIALS = re.compile(r"[\\`*_\[\]<>|~&$]|(?<=:)(?=//)|(?<=\bwww)(?=[.])")
LINE_START = re.compile(r"^(\d*)([#+=.)-])")
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell: equal conversations give equal files


def conversation_as_markdown(
    turns: Sequence[Turn],
    setting: Setting,
    responder: str = "",
    speakers: dict[str, str] | None = None,
    audio: Sequence[str | None] = (),
) -> str:
    """Return a conversation as Markdown; whatever looks like markup in it is shown, not obeyed.

    Args:
        responder: who replied: `Responder.name`.
        speakers: how each role is called, in the language of the page.
        audio: for each turn the file of its recording, beside this one, or None.
    """
    names = {"user": "Yo", "assistant": "lengua"} | (speakers or {})
    facts = [setting.situation, setting.level, *filter(None, [setting.variety]), setting.language, responder]
    parts = ["# lengua", " · ".join(_escaped(fact) for fact in facts if fact)]
    for turn, file in zip_longest(turns, audio):
        heading = f"**{_escaped(names[turn.role])}**" + (f" ([audio]({file}))" if file else "")
        parts += [heading, _quoted(turn.text)]
    return "\n\n".join(parts) + "\n"


def conversation_as_json(
    turns: Sequence[Turn], setting: Setting, responder: str = "", audio: Sequence[str | None] = ()
) -> str:
    """Return a conversation as JSON: {"setting", "responder", "turns": [{"role", "text", "doubtful"?, "audio"?}]}."""
    rows = []
    for turn, file in zip_longest(turns, audio):
        more = {"doubtful": list(turn.doubtful), "audio": file}
        rows.append({"role": turn.role, "text": turn.text} | {name: value for name, value in more.items() if value})
    value = {"setting": asdict(setting), "responder": responder, "turns": rows}
    return json.dumps(value, ensure_ascii=False, indent=2).encode(errors="replace").decode() + "\n"


def write_conversation_zip(
    out: Path,
    turns: Sequence[Turn],
    setting: Setting,
    responder: str = "",
    speakers: dict[str, str] | None = None,
    max_audio_bytes: int = MAX_ZIP_AUDIO_BYTES,
) -> Path:
    """Write conversation.md, conversation.json and audio/01.wav, ...; recordings that are gone or too many are listed.

    Names in the zip are numbers of turns and known suffixes, never a name that a visitor gave to a file.
    """
    audio, left_out = _recordings(turns, max_audio_bytes)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {
            "conversation.md": conversation_as_markdown(turns, setting, responder, speakers, audio),
            "conversation.json": conversation_as_json(turns, setting, responder, audio),
        }
        if left_out:
            texts["left_out.txt"] = "".join(f"{line}\n" for line in left_out)
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), text.encode(errors="replace"), zipfile.ZIP_DEFLATED)
        for turn, name in zip(turns, audio, strict=True):
            if name:
                archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), Path(turn.audio).read_bytes())
    return out


def _recordings(turns: Sequence[Turn], most: int) -> tuple[list[str | None], list[str]]:
    """Return for each turn the name of its recording in a zip, or None; and lines on those that are left out."""
    names, left_out, total = [], [], 0
    for number, turn in enumerate(turns, 1):
        names.append(None)
        if turn.audio is None:
            continue
        path = Path(turn.audio)
        if not path.is_file():
            left_out.append(f"{number}: no recording any more")
        elif total + path.stat().st_size > most:
            left_out.append(f"{number}: over {most >> 20} MB of recordings")
        else:
            total += path.stat().st_size
            suffix = path.suffix.lower()
            names[-1] = f"audio/{number:02}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
    return names, left_out


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in one line: no emphasis, link, tag, entity, heading or list."""
    line = MARKDOWN_SPECIALS.sub(r"\\\g<0>", " ".join(text.encode(errors="replace").decode().split()))
    return LINE_START.sub(r"\1\\\2", line)


def _quoted(text: str) -> str:
    return "\n".join(f"> {_escaped(line)}".rstrip() for line in text.strip().splitlines()) or ">"
