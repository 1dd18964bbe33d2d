"""Templates of `lengua/assets` filled: one-file HTML pages with escaped text, embedded audio, inline SVG; Markdown.

Audio that a store kept is embedded as data: URIs, bounded so that the page stays light. The SVG is text: it takes the
page's colours, light or dark, and any width; it holds numbers and an escaped label, words beside it are the template's.
"""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from lengua import audio
from lengua.data.store import Split
from lengua.evaluation.report.figures import BASE
from lengua.evaluation.report.markdown import code_span, escape_markdown, python_string
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import ASSETS, write_bytes


def render(path: Path, template: str, facts: dict) -> Path:
    """Write a page whole or not at all; a fact that the template names and that is missing is an error."""
    from markupsafe import Markup

    engine = template_engine(autoescape=True)
    style = Markup((ASSETS / "page.css").read_text(encoding="utf-8"))
    engine.filters["drawn"] = Markup  # for SVG of `bar_svg`, which holds nothing that came from data raw
    engine.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")  # every figure and its % on one line
    write_bytes(Path(path), engine.get_template(template).render(style=style, **facts).encode())
    return Path(path)


def template_engine(**how):
    """Return a jinja2.Environment over `lengua/assets`; how: its escaping."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **how,
    )


def render_markdown(template: str, facts: dict) -> str:
    """Fill a template: `{{ name }}` is escaped, `{{ name | code }}` code, `{{ name | quoted }}` Python source."""
    engine = template_engine(finalize=escape_markdown)
    engine.filters |= {"code": code_span, "quoted": python_string}
    return engine.get_template(template).render(**facts)


MAX_CLIP_PLAYER_BYTES, MAX_PAGE_AUDIO_BYTES = 2_000_000, 8_000_000
"""Letters of base64 that one clip and all clips of a page may take."""
AUDIO_SIGNATURES = ((b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"))
NOT_KEPT = "no sound: the store does not keep this clip"
TOO_LARGE = "no sound: the clip is too large for this page"
PAGE_FULL = f"no sound: this page holds {MAX_PAGE_AUDIO_BYTES / 1e6:.0f} MB of it already"
UNREADABLE = "no sound: the kept audio cannot be read"


class Player(NamedTuple):
    """What a page plays: `uri`, or else `note` says why it does not."""

    uri: str | None
    note: str = ""


def make_players(
    split: Split | None, ids: Sequence[str], each: int = MAX_CLIP_PLAYER_BYTES, most: int = MAX_PAGE_AUDIO_BYTES
) -> dict:
    """Return a player by id for each of some utterances; earlier ones come first when room runs out."""
    places = {} if split is None else {id: place for place, id in enumerate(split.column("id"))}
    found, left = {}, most
    for id in dict.fromkeys(ids):
        found[id] = _player(split[places[id]].audio if id in places else None, each, left)
        left -= len(found[id].uri or "")
    return found


def media_type(data: bytes) -> str | None:
    """Return the type of what a browser plays, by its first bytes; None for anything else."""
    for begin, kind in AUDIO_SIGNATURES:
        if data.startswith(begin):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "audio/webm"
    return "audio/mpeg" if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 else None


def _player(data: bytes | None, each: int, left: int) -> Player:
    if not data:
        return Player(None, NOT_KEPT)
    kind = media_type(data)
    if kind is None:  # GSM, AMR and their like: no browser plays them
        try:
            data, kind = audio.as_flac(audio.load(data)), "audio/flac"
        except LenguaError:
            return Player(None, UNREADABLE)
    if 4 * len(data) / 3 > each:
        return Player(None, TOO_LARGE)
    uri = f"data:{kind};base64,{b64encode(data).decode('ascii')}"
    return Player(uri) if len(uri) <= left else Player(None, PAGE_FULL)


def bar_svg(value: float, low: float | None, high: float | None, most: float, look: str, label: str) -> str:
    """Return a bar of `value` of `most`, with a line from `low` to `high` where both are known."""
    parts = [f'<rect width="{_share(value, most)}" height="100%"/>']
    if low is not None and high is not None:
        ends = [_share(end, most) for end in (low, high)]
        parts += [f'<line class="{line}" x1="{ends[0]}" x2="{ends[1]}" y1="50%" y2="50%"/>' for line in ("edge", "ci")]
        parts += [f'<line class="ci" x1="{end}" x2="{end}" y1="25%" y2="75%"/>' for end in ends]
    return f'<svg class="bar {look}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def bar_scale(rows: Sequence[dict]) -> float:
    """Return what the widest bar stands for: the highest WER or end of an interval, never 0."""
    return max((max(row["wer"], row.get("wer_high") or 0) for row in rows), default=0) or 1


def bar_look(row: dict, opponent: str | None = BASE) -> str:
    """Return the colour of a row's bar, by name, as in figures: the opponent grey, adaptive blue, padded sky."""
    if row["model"] in (BASE, opponent):
        return "base"
    return "adaptive" if row.get("window") == "adaptive" else "padded"


def _share(value: float, most: float) -> str:
    return f"{min(100.0, max(0.0, 100 * value / most)):.2f}%"
