"""The story of the 300 % for a notebook: each failure with its measured figure, its cause and its cure, in Markdown.

    Markdown(stories("short_window", "zero_padding"))
    Markdown(provoked("openai/whisper-base", "sv", store.split("test")))

Figures come from `lengua.evaluation.failures`, words from `lengua.evaluation.diagnosis`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lengua.evaluation.autopsy import Autopsy, autopsy
from lengua.evaluation.causes import GOOD, Finding
from lengua.evaluation.diagnosis import diagnose
from lengua.evaluation.failures import Failure, study
from lengua.evaluation.probes import spread
from lengua.evaluation.provoking import heard_in
from lengua.figures.failures import failures_figure
from lengua.options import TrainOptions
from lengua.publishing.markdown import escaped, grid, one_line
from lengua.report import with_interval
from lengua.scoring import percent
from lengua.store import Row
from lengua.transcription import Transcriber

MARGIN_S = TrainOptions("").margin_s[0]
"""Silence behind a clip in a short window: the least that training draws."""
CLIPS = 24
"""That are heard in both windows, spread over the set."""
LEARNED = ("double_start", "label_shift", "end_masked", "rate", "prompt", "few_data")
"""Causes that a model cannot have that has learned nothing here."""
SHOWN = 160
"""Letters of a transcript that are shown; a loop has thousands."""


def failures_picture(path: Path) -> str:
    """Draw all failures and return the path, as `IPython.display.Image` wants it."""
    found = study().failures
    failures_figure({name: asdict(failure) for name, failure in found.items()}, path)
    return str(path)


def measured_how() -> str:
    """Return how the failures were measured, by what command, and on whose speech."""
    told = study()
    return f"{told.about} `{told.command}`, {told.where}. {escaped(told.attribution)}"


def stories(*names: str) -> str:
    """Return failures by name: what was broken, what came of it, why, and what to do; all of them without a name."""
    found = study().failures
    return "\n\n".join(story(found[name]) for name in names or found)


def story(failure: Failure) -> str:
    """Return one failure as Markdown."""
    [one, *_] = failure.findings
    loops = f", {failure.looped} of {failure.clips} clips in circles" if failure.looped else ""
    lines = [f"**{escaped(failure.title)}**: WER {with_interval(asdict(failure))}, loss {failure.loss:.2f}{loops}"]
    if failure.said:
        lines += [f"- said: *{escaped(failure.said)}*", f"- heard: *{shortened(failure.heard)}*"]
    if one.severity != GOOD:
        seen = "in the transcripts" if failure.shows_in_text else "in a batch, and not in these transcripts"
        lines += [*_reasons(one), f"- shows {seen}"]
    return "\n".join(lines)


def findings_list(findings: Sequence[Finding | dict]) -> str:
    """Return what a diagnosis found: each sign with the likely cause, and the cure."""
    found = [one if isinstance(one, Finding) else Finding(**one) for one in findings]
    return "\n\n".join(map(_told, found))


def provoked(base: str, language: str, rows: Sequence[Row], count: int = CLIPS) -> str:
    """Let an untouched model write down clips at 30 s and in a short window; return both, and the diagnosis."""
    transcriber, chosen = Transcriber(base, language), spread(rows, count)
    heard = {margin: heard_in(transcriber, chosen, margin) for margin in (None, MARGIN_S)}
    padded, short = (autopsy(records, language) for records in heard.values())
    found = diagnose(short, padded, window="adaptive", padded=padded)
    likely = [one for one in found if one.name not in LEARNED and one.severity != GOOD][:1]
    [worst] = sorted(heard[MARGIN_S], key=lambda record: -record["tokens"])[:1]
    windows = {"padded to 30 s": padded, f"speech and {MARGIN_S:g} s": short}
    lines = [[name, percent(one.wer), one.insertions, _endless(one)] for name, one in windows.items()]
    table = grid(["window", "WER", "words made up", "clips that do not stop"], lines)
    said, written = escaped(worst["reference"]), shortened(worst["hypothesis"])
    longest = f"The longest text of the short window, where *{said}* was said: {written}"
    return "\n\n".join([table, longest, findings_list(likely) or "It got away with it: these clips end well."])


def shortened(text: str) -> str:
    """Return the beginning of a text, ready for Markdown, and how much more there is."""
    text = one_line(text)
    if len(text) <= SHOWN:
        return escaped(text) or "nothing"
    return f"{escaped(text[:SHOWN].rstrip())} … and {len(text) - SHOWN:,} letters more"


def _told(one: Finding) -> str:
    head = f"**{escaped(one.what)}** ({one.name})"
    return f"{head}: {one.cause}, {one.cure}." if one.severity == GOOD else "\n".join([head, *_reasons(one)])


def _reasons(one: Finding) -> list[str]:
    told = {"cause": one.cause, "cure": one.cure, "to be sure": one.check}
    return [f"- {name}: {escaped(text)}" for name, text in told.items()]


def _endless(found: Autopsy) -> int:
    return len(set().union(*(found.marks[mark] for mark in ("looped", "length_limit", "runs_on"))))
