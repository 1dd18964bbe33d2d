"""Error analysis in a notebook, as Markdown: one evaluation, and the measured ways to ruin a fine-tuning.

    reading = read_evaluation(out / "evaluation")
    Markdown(verdict_list(reading)), Markdown(groups_table(reading)), Markdown(advice_list(reading))

    Markdown(format_failures("short_window", "zero_padding"))
    Markdown(reproduce_failure("openai/whisper-base", "sv", store.split("test")))

`lengua.evaluation` computes, this module formats. The figures of the failures are read from a file that
benchmarks/three_hundred.py writes after provoking them on real speech; none is typed.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from lengua.data.store import Row
from lengua.evaluation.confusions import rank_hard_words
from lengua.evaluation.diagnosis import GOOD, DiagnosisFinding, diagnose_failures
from lengua.evaluation.failure_modes import decode_unguarded, evenly_spaced_rows, find_failure_modes
from lengua.evaluation.recommendations import (
    clip_changes,
    clips_needed,
    detectable_difference,
    doubtful_references,
    overall_wer,
    recommend,
)
from lengua.evaluation.report.figures import failures_figure, groups_figure
from lengua.evaluation.report.html import confusion_tables, differs_from_rest, unknown_keys
from lengua.evaluation.report.markdown import as_one_line, escape_markdown
from lengua.evaluation.report.tables import DASH, with_interval
from lengua.evaluation.results import LoadedEvaluation
from lengua.evaluation.subgroups import UNKNOWN_GROUP
from lengua.inference import Transcriber
from lengua.notebook.tables import notebook_table
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import ASSETS, read_json
from lengua.scoring import percent

WER_DIFFERENCES_POINTS = (5.0, 2.0, 1.0)
"""Differences of WER, in points, that one may want to show."""
MAX_NAMED_GROUPS = 12
"""Groups that are named in a sentence."""
ONLY_ONE_MODEL = "Only one model was measured, so there is nothing to hold it against."


def verdict_list(reading: LoadedEvaluation) -> str:
    """Return the headline, a sentence for each model, window and set, and what one must know to read the figures."""
    sentences = [verdict.sentence for verdict in reading.verdicts]
    whose = reading.results.get("attribution")
    remarks = [*(reading.analysis.get("notes") or []), *([f"Speech and texts: {whose}."] if whose else [])]
    lines = [f"- {escape_markdown(one)}" for one in [*sentences, *remarks]]
    return "\n".join([f"**{escape_markdown(reading.headline)}**", "", *lines])


def resolution_list(reading: LoadedEvaluation) -> str:
    """Return how small a difference this test set can show, and how many clips smaller ones would take."""
    found = detectable_difference(reading)
    if found is None:
        return ONLY_ONE_MODEL
    difference, low, high = (signed_points(one) for one in (found.difference, found.low, found.high))
    chance = "beyond chance" if found.shown else "may be chance"
    lines = [f"**{difference} points** ({low} to {high}), over {found.units:,} {found.unit}s: {chance}."]
    if found.smallest:
        smallest = f"{100 * found.smallest:.1f} points"
        lines.append(f"The smallest difference that these {len(reading.pairs):,} clips would show: **{smallest}**.")
        needed = [
            [f"{one:g} point{'s' * (one != 1)}", f"{clips_needed(reading, one):,}"] for one in WER_DIFFERENCES_POINTS
        ]
        lines.append(notebook_table(["to show a difference of", "clips like these, about"], needed))
    return "\n\n".join(lines)


def changes_table(reading: LoadedEvaluation, count: int = 8) -> str:
    """Return how many clips became better and worse, and the ones that became worst."""
    found = clip_changes(reading.pairs)
    if not found:
        return ONLY_ONE_MODEL
    kinds = {
        "better": [one for one in found if one.gained > 0],
        "as before": [one for one in found if one.gained == 0],
        "worse": [one for one in found if one.gained < 0],
    }
    sizes = [
        [name, len(some), sum(one.errors_before for one in some), sum(one.errors_after for one in some)]
        for name, some in kinds.items()
    ]
    worst = [[one.reference, one.before or DASH, one.after or DASH, -one.gained] for one in kinds["worse"][:count]]
    tables = [notebook_table(["", "clips", "errors before", "after"], sizes)]
    tables += [notebook_table(["said", "before", "after", "more errors"], worst, "lll")] if worst else []
    return "\n\n".join(tables)


def doubtful_table(reading: LoadedEvaluation, count: int = 8) -> str:
    """Return clips whose text may be wrong: both models write the same, and mostly something else."""
    found = doubtful_references(reading.pairs)
    if not found:
        return "No clip of which both models hear the same and mostly something else than its text."
    lines = [[one.id, one.reference, one.after] for one in found[:count]]
    return notebook_table(["clip", "its text", "what both models hear"], lines, "lll")


def groups_picture(reading: LoadedEvaluation, path: Path) -> str:
    """Draw the groups that are known of anybody, and return the path, as `IPython.display.Image` wants it."""
    groups_figure(_known_groups(reading), overall_wer(reading), path)
    return str(path)


def groups_table(reading: LoadedEvaluation) -> str:
    """Return the groups that differ from all other clips beyond chance; name those too small to tell."""
    groups = [group for group in _known_groups(reading) if group["group"] != UNKNOWN_GROUP]
    differing = [
        [_name(group), with_interval(group), f"{signed_points(group['difference'])} points"]
        for group in groups
        if not group["small"] and differs_from_rest(group)
    ]
    small = [f"{_name(group)}: {group['small']}" for group in groups if group["small"]]
    unknown = unknown_keys(reading.analysis.get("groups") or [])
    lines = ["No group differs from the others beyond chance."]
    if differing:
        lines = [notebook_table(["group", "WER (95 % interval)", "beside the others"], differing)]
    lines += [f"Too small to tell: {_named(small)}."] if small else []
    lines += [f"Not told of any clip: {_named(unknown)}."] if unknown else []
    return "\n\n".join(lines)


def confusions_table(reading: LoadedEvaluation, count: int = 8) -> str:
    """Return what is taken for what: words, words left out and made up, letters within words."""
    found = confusion_tables(reading.analysis.get("confusions") or {})
    if not found:
        return "Nothing was taken for anything else."
    columns = [
        [f"{reference} → {hypothesis} ({times})" for reference, hypothesis, times in table.rows[:count]]
        for table in found
    ]
    return notebook_table([table.title for table in found], list(zip_longest(*columns, fillvalue="")), "llll")


def words_table(reading: LoadedEvaluation, count: int = 12) -> str:
    """Return the words that are wrong most often."""
    found = rank_hard_words(reading.after)[:count]
    lines = [[one.word, one.hypothesis or DASH, one.example, f"{one.wrong} of {one.occurrences}"] for one in found]
    table = notebook_table(["word", "heard as", "first in clip", "wrong"], lines, "lll")
    return table if lines else "Not one word is wrong."


def advice_list(reading: LoadedEvaluation) -> str:
    """Return what to record next, the most urgent first, each with what it rests on."""
    advice = [(one.do, f"{one.because[0].upper()}{one.because[1:]}") for one in recommend(reading)]
    return "\n".join(f"1. **{escape_markdown(do)}.** {escape_markdown(because)}." for do, because in advice)


def signed_points(fraction: float) -> str:
    """Write a difference of rates in points of per cent: -0.04 is "−4.0"."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _known_groups(reading: LoadedEvaluation) -> list[dict]:
    groups = reading.analysis.get("groups") or []
    return [group for group in groups if group["key"] not in unknown_keys(groups)]


def _name(group: dict) -> str:
    return f"{group['key'].replace('_', ' ')} {group['group']}"


def _named(some: Sequence[str]) -> str:
    more = f", and {len(some) - MAX_NAMED_GROUPS:,} more" if len(some) > MAX_NAMED_GROUPS else ""
    return escape_markdown("; ".join(some[:MAX_NAMED_GROUPS])) + more


FAILURE_STUDY_FILE = ASSETS / "three_hundred.json"
STUDY_KEYS = {"command", "where", "about", "attribution", "failures"}
FAILURE_KEYS = {
    "name",
    "title",
    "clips",
    "words",
    "wer",
    "wer_low",
    "wer_high",
    "substitutions",
    "deletions",
    "insertions",
}
FAILURE_KEYS |= {"looped", "length_limit", "loss", "by_text", "findings", "said", "heard"}


def read_failure_study(path: Path = FAILURE_STUDY_FILE) -> dict:
    """Return what benchmarks/three_hundred.py recorded: command, where, about, attribution, and failures by name.

    A failure is one thing broken, or none, and what came of it: title, WER (a fraction) with its interval, loss a token
    by teacher forcing, findings with a batch and the settings looked at, `by_text` those of the transcripts alone, and
    the clip with most words made up. The untouched base comes first, the healthy run last.

    Raises:
        RequestError: the file is not there, or was written by another version.
    """
    if not path.is_file():
        do = "run `python benchmarks/three_hundred.py --record` in a clone of the project"
        raise RequestError("the figures of the failures", f"no file at {path}", do)
    study = read_json(path)
    lacking = STUDY_KEYS - study.keys() or {key for one in study["failures"] for key in FAILURE_KEYS - one.keys()}
    if lacking:
        expected, found = "the figures of the failures, as this version writes them", f"no {min(lacking)} in {path}"
        raise RequestError(expected, found, "record them again: python benchmarks/three_hundred.py --record")
    return study | {"failures": {failure["name"]: failure for failure in study["failures"]}}


SHORT_MARGIN_S = TrainOptions("").margin_s[0]
"""Silence behind a clip in a short window: the least that training draws."""
REPRODUCTION_CLIPS = 24
"""That are transcribed in both windows, spread over the set."""
TRAINING_CAUSES = ("double_start", "label_shift", "end_masked", "rate", "prompt", "few_data")
"""Causes that a model cannot have that has learned nothing here."""
MAX_TRANSCRIPT_LETTERS = 160
"""Letters of a transcript that are shown; a loop has thousands."""


def failures_picture(path: Path) -> str:
    """Draw all failures and return the path, as `IPython.display.Image` wants it."""
    failures_figure(read_failure_study()["failures"], path)
    return str(path)


def study_method() -> str:
    """Return how the failures were measured, by what command, and on whose speech."""
    study = read_failure_study()
    return f"{study['about']} `{study['command']}`, {study['where']}. {escape_markdown(study['attribution'])}"


def format_failures(*names: str) -> str:
    """Return failures by name: what was broken, what came of it, why, and what to do; all of them without a name."""
    failures = read_failure_study()["failures"]
    return "\n\n".join(format_failure(failures[name]) for name in names or failures)


def format_failure(failure: dict) -> str:
    """Return one failure as Markdown."""
    finding = DiagnosisFinding(**failure["findings"][0])
    loops = f", {failure['looped']} of {failure['clips']} clips in circles" if failure["looped"] else ""
    title = escape_markdown(failure["title"])
    lines = [f"**{title}**: WER {with_interval(failure)}, loss {failure['loss']:.2f}{loops}"]
    if failure["said"]:
        lines += [f"- said: *{escape_markdown(failure['said'])}*", f"- heard: *{shorten_text(failure['heard'])}*"]
    if finding.severity != GOOD:
        in_text = failure["by_text"][0] == finding.name
        seen = "in the transcripts" if in_text else "in a batch, and not in these transcripts"
        lines += [*_reasons(finding), f"- shows {seen}"]
    return "\n".join(lines)


def findings_list(findings: Sequence[DiagnosisFinding | dict]) -> str:
    """Return what a diagnosis found: each sign with the likely cause, and the cure."""
    found = [one if isinstance(one, DiagnosisFinding) else DiagnosisFinding(**one) for one in findings]
    return "\n\n".join(map(_format_finding, found))


def reproduce_failure(base: str, language: str, rows: Sequence[Row], count: int = REPRODUCTION_CLIPS) -> str:
    """Let an untouched model write down clips at 30 s and in a short window; return both, and the diagnosis."""
    transcriber, chosen = Transcriber(base, language), evenly_spaced_rows(rows, count)
    transcribed = {margin: decode_unguarded(transcriber, chosen, margin) for margin in (None, SHORT_MARGIN_S)}
    padded, short = (find_failure_modes(records, language) for records in transcribed.values())
    found = diagnose_failures(short, padded, window="adaptive", padded=padded)
    likely = [one for one in found if one.name not in TRAINING_CAUSES and one.severity != GOOD][:1]
    [worst] = sorted(transcribed[SHORT_MARGIN_S], key=lambda record: -record["tokens"])[:1]
    windows = {"padded to 30 s": padded, f"speech and {SHORT_MARGIN_S:g} s": short}
    lines = [[name, percent(one.wer), one.insertions, one.endless] for name, one in windows.items()]
    table = notebook_table(["window", "WER", "words made up", "clips that do not stop"], lines)
    reference, hypothesis = escape_markdown(worst["reference"]), shorten_text(worst["hypothesis"])
    longest = f"The longest text of the short window, where *{reference}* was said: {hypothesis}"
    return "\n\n".join([table, longest, findings_list(likely) or "It got away with it: these clips end well."])


def shorten_text(text: str) -> str:
    """Return the beginning of a text, ready for Markdown, and how much more there is."""
    text = as_one_line(text)
    if len(text) <= MAX_TRANSCRIPT_LETTERS:
        return escape_markdown(text) or "nothing"
    more = len(text) - MAX_TRANSCRIPT_LETTERS
    return f"{escape_markdown(text[:MAX_TRANSCRIPT_LETTERS].rstrip())} … and {more:,} letters more"


def _format_finding(one: DiagnosisFinding) -> str:
    head = f"**{escape_markdown(one.what)}** ({one.name})"
    return f"{head}: {one.cause}, {one.cure}." if one.severity == GOOD else "\n".join([head, *_reasons(one)])


def _reasons(one: DiagnosisFinding) -> list[str]:
    reasons = {"cause": one.cause, "cure": one.cure, "to be sure": one.check}
    return [f"- {name}: {escape_markdown(text)}" for name, text in reasons.items()]
