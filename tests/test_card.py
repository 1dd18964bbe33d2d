"""The model card: every figure from a file, what became worse first, names that would break it shown as they are."""

import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
import yaml
from huggingface_hub import ModelCard
from report_data import evaluation, record, row

from lengua.evaluation.report.markdown import code_span, escape_markdown, python_string
from lengua.evaluation.report.tables import Table, with_interval
from lengua.evaluation.subgroups import measure_groups
from lengua.models.checkpoints import ModelNote
from lengua.publishing.model_card import CardSources, build_model_card
from lengua.runtime.files import write_json, write_jsonl

NASTY = 'a|b`c``d <script>alert("x")</script> [x](javascript:1) *y* _z_ # $h$\n---\ntags: [evil]\n```\n<!-- '
NOTE = ModelNote("openai/whisper-base", "es", "adaptive", (0.3, 1.5), "Ana Ruiz, CC-BY-4.0")
RUN = {
    "options": {"source": "/home/ana/stores/es", "out": "runs/x", "base": "openai/whisper-base", "language": "es"}
    | {"learning_rate": 2.5e-5, "epochs": 3.0, "recipe": "recipes/spanish.yaml", "steps": None, "minutes": None},
    "base_weights": "local cache (/home/ana/.cache/lengua)",
    "finished": True,
    "steps": 333,
    "dev_wer": 0.1435,
    "seconds": {"training": 410.0},
    "hardware": "2 cores, AMD EPYC",
    "commit": "70482bc",
    "versions": {"torch": "2.13.0"},
}
MANIFEST = {
    "source": "sample:es",
    "revision": "544",
    "licence": "allison: CC-BY-SA-3.0",
    "splits": {"train": {"utterances": 850, "hours": 0.4916, "speakers": 2}},
}
ABOUT = {"source": "sample:es", "source_revision": "544", "attribution": "Ana Ruiz, CC-BY-4.0", "against": "base"}
MEASURED = {"normaliser": "lengua-basic-1", "decoding": "greedily", "hours": 0.07, "ms_per_clip": 48.0}


@pytest.fixture
def origin(tmp_path):
    """A function that writes a run with what is given, and returns where a card reads it from."""

    def make(results: dict | None = None, records: list | None = None, note: ModelNote = NOTE, run=RUN, store=MANIFEST):
        folder = tmp_path / "run"
        (folder / "model").mkdir(parents=True, exist_ok=True)
        write_json(folder / "model/lengua.json", asdict(note))
        for name, told in (("run.json", run), ("store/manifest.json", store), ("evaluation/results.json", results)):
            if told is not None:
                write_json(folder / name, told)
        write_jsonl(folder / "evaluation/hypotheses.jsonl", records or [])
        return CardSources(folder / "model", folder)

    return make


def results_of(before: str, after: str, **more) -> tuple[dict, list]:
    results, records = evaluation(before, after, **MEASURED)
    return results | ABOUT | more, records


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def metadata(text: str) -> dict:
    """Return the front matter as the Hub's own reader has it."""
    told = ModelCard(text).data.to_dict()
    assert told == yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    return told


def test_what_was_made_better_and_how_and_from_what(origin):
    results, records = results_of("uno tres", "uno dos")
    text = build_model_card(origin(results, records), "ana/whisper-es", ("hf", "ct2"), on_hub=True)
    for row_ in results["rows"]:
        assert with_interval(row_) in text
    for told in ("333 steps of 8 clips, 3 epochs", "0.49 h in 850 clips of 2 speakers", "speech and 0.3 to 1.5 s"):
        assert told in text
    for told in ("2.5e-05 at its peak", "2 cores, AMD EPYC", "6.8 min of training", "14.3 %", "| recipe | spanish |"):
        assert told in text
    assert "Ana Ruiz, CC-BY-4.0" in text and "released under the MIT License" in text and "CC-BY-SA-3.0" in text
    assert "/home/ana" not in text and "orse" not in body(text).split("## Use")[0]
    assert "Not measured: other languages" in text and "`--parity-clips 0`" in text


def test_what_became_worse_is_said_before_anything_else(origin):
    results, records = results_of("uno dos", "uno tres")
    results["findings"] = [{"name": "x", "severity": "broken", "what": "it loops", "cause": "c", "cure": "d"}]
    results["probes"] = {
        "base": {"silence": {"windows": 4, "spoken": 1}, "language": {"clips": 9, "right": 9}, "timestamps": None},
        "fine-tuned": {"silence": {"windows": 4, "spoken": 3}, "language": {"clips": 9, "right": 9}},
    }
    text = build_model_card(origin(results, records), "ana/whisper-es", ("hf",), on_hub=True)
    first = body(text).split("Whisper, fine-tuned to")[0]
    assert "**Worse on test (fine-tuned, padded): 0.0 % → 50.0 %" in first and "**Broken: it loops.**" in first
    assert "**Less than the base: keeps silent in silence, 3 of 4 → 1 of 4.**" in first
    assert "hears its language" not in first and "| hears its language without being told | 9 of 9 | 9 of 9 |" in text


def test_a_loss_that_may_be_chance_is_said_first_too(origin):
    results, records = results_of("uno dos", "uno dos")
    results["rows"][1]["wer"] = 0.05
    records[-1] |= record("fine-tuned", "clip 9", "uno dos", "uno tres")
    text = build_model_card(origin(results, records), "ana/x", ("hf",))
    assert "It may be chance" in body(text).split("Whisper, fine-tuned")[0]
    text = build_model_card(origin(results, []), "ana/x", ("hf",))
    assert "is worse on test: 0.0 % → 5.0 %" in body(text).split("Whisper, fine-tuned")[0]


def test_other_languages_stand_in_a_table_of_their_own(origin):
    results, records = results_of("uno dos", "uno dos")
    results["rows"] += [row("base", 0.2, name="sample:fr"), row("fine-tuned", 0.4, name="sample:fr")]
    text = build_model_card(origin(results, records), "ana/x", ("hf",))
    forgotten = text.split("## What it forgot")[1].split("##")[0]
    assert "40.0 % (32.0 to 48.0)" in forgotten and "sample:fr" not in text.split("## Measured")[1].split("##")[0]
    assert "is worse on sample:fr: 20.0 % → 40.0 %" in body(text).split("## Use")[0]


def test_what_was_forgotten_may_stand_in_another_evaluation_of_the_run(origin):
    results, records = results_of("uno dos", "uno dos")
    made = origin(results, records)
    probe = {"silence": {"windows": 4, "spoken": 1}}
    rows = [row("base", 0.2, name="sample:fr"), row("fine-tuned", 0.3, name="sample:fr")]
    more = {"rows": rows, "probes": {"base": probe, "fine-tuned": probe}, "date": "2026-11-23"}
    write_json(made.run / "probed/results.json", more | {"model": "runs/run"})
    write_json(made.run / "other/results.json", more | {"model": "runs/other", "date": "2026-12-01", "rows": []})
    text = build_model_card(made, "ana/x", ("hf",))
    assert "30.0 % (24.0 to 36.0)" in text and "| keeps silent in silence | 3 of 4 | 3 of 4 |" in text
    assert "is worse on sample:fr" in body(text).split("## Use")[0]


def grouped(results: dict, records: list[dict], accents: list[str], **options) -> dict:
    """Give the records accents in turn; return the results with their groups."""
    for index, one in enumerate(records):
        one |= {"extra": {"accent": accents[index % len(accents)]}, "speaker": "Lucía Gómez"}
    mine = [one for one in records if one["model"] == "fine-tuned"]
    return results | {"groups": [asdict(group) for group in measure_groups(mine, resamples=20, **options)]}


def test_groups_have_the_base_beside_them_and_nobody_is_named(origin):
    results, records = results_of("uno dos", "uno dos")
    results = grouped(results, records, ["Andino", "Caribe | <b>x</b>"])
    text = build_model_card(origin(results, records), "ana/x", ("hf",))
    assert "### By accent" in text and "| Andino | 5 | 1 | 10 | 0.0 % |" in text and "&lt;b&gt;x" in text
    assert "By age" not in text and "Lucía" not in text and "### By length of the clip" in text


def test_many_groups_are_folded_and_none_is_left_out(origin):
    results, records = evaluation("uno dos", "uno dos", clips=40, **MEASURED)
    results = grouped(results | ABOUT, records, [f"acento {number}" for number in range(40)], keys=["accent"])
    text = build_model_card(origin(results, records), "ana/x", ("hf",))
    folded = text.split("<details><summary>40 groups</summary>\n\n")[1].split("\n\n</details>")[0]
    assert len(folded.splitlines()) == 42


def test_a_model_that_was_not_measured_or_never_trained_says_so(origin):
    text = build_model_card(origin(None, run=None, store=None), "export", ("hf",))
    assert "Not measured yet" in text and "Not known: there is no run.json" in text
    assert not re.search(r"\d %", text) and "model-index" not in metadata(text)
    assert metadata(text)["license"] == "other" and "of unknown licence" in text
    text = build_model_card(origin(None, note=ModelNote(), run=None, store=None), "export", ("hf",))
    assert "not fine-tuned" in text and metadata(text)["license"] == "mit"
    note = ModelNote("/home/ana/whisper", "es", "padded", (0.0, 0.0))
    text = build_model_card(origin(None, note=note, run=None, store=None), "export", ("hf",))
    assert "/home/ana" not in text and "base_model" not in metadata(text)


def test_the_hub_reads_language_licence_base_and_every_wer(origin):
    results, records = results_of("uno tres", "uno dos")
    results["rows"] += [
        row("fine-tuned", 0.125, window="adaptive", **MEASURED),
        row("base", 0.2, name="sample:fr"),
        row("fine-tuned", 0.4, name="sample:fr"),
        row("fine-tuned", 0.3, name="lucía"),
    ]
    told = metadata(build_model_card(origin(results, records), "ana/whisper-es", ("hf", "ct2", "ggml"), on_hub=True))
    assert (told["language"], told["base_model"], told["library_name"]) == ("es", "openai/whisper-base", "transformers")
    assert told["license"] == "other" and told["license_name"] == "mit-and-terms-of-the-speech"
    assert told["metrics"] == ["wer"] and {"whisper", "ctranslate2", "whisper.cpp"} <= set(told["tags"])
    (index,) = told["model-index"]
    wers = {
        (one["dataset"]["name"], metric["name"]): metric["value"]
        for one in index["results"]
        for metric in one["metrics"]
    }
    assert wers == {
        ("sample:es", "WER (%), padded"): 0.0,
        ("sample:es", "WER (%), adaptive"): 12.5,
        ("sample:fr", "WER (%), padded"): 40.0,
        ("sample:es, lucía", "WER (%), padded"): 30.0,
    }
    assert index["name"] == "whisper-es" and index["results"][0]["dataset"]["split"] == "test"


def test_names_that_would_break_a_card_are_shown_as_they_are(origin):
    results, records = results_of("uno dos", "uno tres")
    for one in (*results["rows"], *records):
        one["set"] = NASTY
    results = grouped(results, records, [NASTY]) | {"notes": [NASTY], "source": NASTY}
    results["confusions"] = {"substitutions": [{"said": NASTY, "heard": "```", "count": 3}]}
    finding = {"name": "x", "severity": "broken", "what": NASTY, "cause": NASTY, "cure": NASTY}
    note = ModelNote("openai/whisper-base", "es", "padded", (0.0, 0.0), NASTY)
    manifest = MANIFEST | {"source": NASTY, "licence": NASTY, "revision": NASTY}
    run = RUN | {"hardware": NASTY, "stopped": NASTY, "versions": {NASTY: NASTY}}
    made = origin(results | {"findings": [finding], "hardware": NASTY}, records, note, run, manifest)
    text = build_model_card(made, "ana/x", ("hf", "ct2", "ggml"), on_hub=True)
    assert "evil" not in metadata(text)["tags"] and len(re.findall("^---$", text, re.MULTILINE)) == 2
    shown = prose(body(text))
    assert Tags(shown).seen == [] and not re.search(r"(?<!\\)\]\(", shown)
    tables = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(tables) > 20
    for table in re.split(r"\n\n+", shown):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1, table
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * 4, "four snippets, and no fence that a name opened"


def prose(text: str) -> str:
    """Return a card without its code."""
    text = re.sub(r"\\[\\`]", "", text)
    return re.sub(r"(`+)(?:(?!\1).)*\1", "CODE", re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL))


class Tags(HTMLParser):
    """The tags that a browser would see in a text."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)

    def handle_comment(self, data):
        self.seen.append("comment")


@pytest.mark.parametrize("text", [NASTY, "`", "``", "a`", "|", "\\", "\\`", "", "ñ\u2028x\x00y"])
def test_escaping_leaves_nothing_active_and_loses_no_letter(text):
    shown = escape_markdown(text)
    assert "\n" not in shown and "<" not in shown and not re.search(r"(?<!\\)(?:\\\\)*[|`*_\[]", shown)
    assert eval(python_string(text)) == text and "`" not in python_string(text) and "\n" not in python_string(text)
    assert "|" not in code_span(text) and "\n" not in code_span(text)
    assert Table(["a", "b"], [[text, 1]]).to_markdown().count("\n") == 2


def test_the_table_of_programs_and_those_left_out(origin):
    side = {"format": "hf", "wer": 0.1, "wer_difference": 0.0, "wer_bound": 0.02, "words_that_differ": 0.0}
    side |= {"words_bound": 0.05, "clips_that_differ": 0, "agrees": True}
    rows = [side | {"program": "transformers 5.23"}, side | {"program": "whisper.cpp", "format": "ggml", "wer": 0.11}]
    found = {"clips": 20, "rows": rows, "left_out": ["faster-whisper"]}
    joined = [{"program": "transformers 5.23", "wer": 0.3, "base_wer": 0.2, "loses_words": True}]
    joined.append({"program": "whisper.cpp", "wer": 0.3, "base_wer": None, "loses_words": False})
    found |= {"joined": joined, "joined_seconds": 95.5}
    text = build_model_card(origin(), "export", ("hf", "ggml"), parity=found)
    sentence = "Long recordings lose words in transformers 5.23: WER 30.0%, of the base 20.0%."
    assert text.index(f"**{sentence}**") < text.index("## Use") and "whisper.cpp: WER" not in text
    assert "one recording of 95.5 s" in text and "| whisper.cpp | 30.0% | – |" in text
    compared = text.split("## The same words in every program")[1].split("##")[0]
    assert "The same 20 clips" in compared and "| transformers 5.23 | hf | 10.0% |" in compared and "11.0%" in compared
    assert "- faster-whisper was left out" in compared and "ggml-model.bin" in text
