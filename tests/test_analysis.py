"""What stands beside the rows: of the right model and window, with and without leaked clips."""

import json

from lengua.data.leakage import find_leaks
from lengua.evaluation.error_analysis import analyse
from lengua.scoring import score

TEXTS = ["uno dos tres", "el perro duerme", "la niña canta", "qué tal estás", "buenos días a todos"]


def records(model: str, window: str, said: list[str]) -> list[dict]:
    """Return what an evaluation would have written."""
    counts = score(TEXTS, said).counts
    return [
        {
            "model": model,
            "window": window,
            "set": "test",
            "id": f"clip-{at}",
            "speaker": "ab"[at % 2],
            "duration_s": 2.0,
            "extra": {"gender": ["female", "male"][at % 2]},
            "reference": reference,
            "hypothesis": hypothesis,
            "counts": dict(zip(counts.dtype.names, counts[at].tolist(), strict=True)),
            "flags": [],
        }
        for at, (reference, hypothesis) in enumerate(zip(TEXTS, said, strict=True))
    ]


BASE = records("base", "padded", ["uno dos", "el perro", "la nina canta", "que tal estas", "buenas días"])
PADDED = records("fine-tuned", "padded", TEXTS)
ADAPTIVE = records("fine-tuned", "adaptive", ["uno dos tres", "el gato duerme", *TEXTS[2:]])
NOTES = {"base": {}, "fine-tuned": {"window": "adaptive"}}


def test_the_model_that_was_asked_for_comes_first_in_its_own_window():
    told = analyse([*BASE, *PADDED, *ADAPTIVE], "es", NOTES, "base", resamples=100)
    assert told["about"] == "fine-tuned, adaptive"
    assert [(part["model"], part["window"]) for part in told["models"]] == [
        ("base", "padded"),
        ("fine-tuned", "padded"),
        ("fine-tuned", "adaptive"),
    ]
    [confusion] = told["confusions"]["substitutions"]
    assert (confusion["said"], confusion["heard"], confusion["count"]) == ("perro", "gato", 1)
    assert {(group["key"], group["group"]) for group in told["groups"]} >= {("gender", "female"), ("gender", "male")}
    assert told["findings"] and told["leaks"] is None and "accents aside" in " ".join(told["notes"])
    json.dumps(told)  # results.json can hold it


def test_spelling_is_told_from_hearing():
    base, *_ = analyse([*BASE, *ADAPTIVE], "es", NOTES, "base", resamples=100)["models"]
    assert base["views"]["accent_blind"]["wer"] < base["views"]["basic"]["wer"] <= base["views"]["raw"]["wer"]
    assert base["orthography"]["accents"] == 2 and base["orthography"]["letters"] == 1
    assert base["orthography"]["words"] == base["autopsy"]["deletions"] + 1


def test_the_wer_is_told_with_and_without_what_leaked():
    test = {"id": [f"clip-{at}" for at in range(5)], "text": TEXTS, "speaker": list("ababa")}
    train = {"id": ["other"], "text": ["El perro duerme."], "speaker": ["z"]}
    leaks = find_leaks(test, train)
    told = analyse(ADAPTIVE, "es", NOTES, None, leaks, {"clip-1"}, resamples=100)
    [part] = told["models"]
    assert part["without_leaks"] == {"clips": 4, "wer_with": 1 / 16, "wer_without": 0.0}
    assert "without what was found in training: 0.0 %; with it: 6.2 %" in told["notes"][1]
    assert told["leaks"]["sentence"] == 1 and "1 by their sentence" in told["notes"][0]


def test_nothing_measured_is_nothing_to_tell():
    assert analyse([], "es", {}) == {}
