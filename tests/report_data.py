"""Rows and records as an evaluation writes them, for the tests of what is made of them."""

from lengua.scoring import score


def record(model: str, id: str, reference: str, hypothesis: str, window: str = "padded", **more) -> dict:
    """A record as hypotheses.jsonl holds it."""
    counts = score(reference, hypothesis).counts[0]
    return {
        "model": model,
        "window": window,
        "set": "test",
        "id": id,
        "speaker": "a",
        "duration_s": 1.25,
        "extra": {},
        "reference": reference,
        "hypothesis": hypothesis,
        "counts": {name: int(counts[name]) for name in counts.dtype.names},
        "flags": [],
    } | more


def row(model: str, wer: float, window: str = "padded", name: str = "test", **more) -> dict:
    """A row as results.json holds it."""
    interval = {"wer_low": wer * 0.8, "wer_high": wer * 1.2, "interval": "95 % bootstrap over utterances"}
    return {"model": model, "window": window, "set": name, "wer": wer, "words": 20, "utterances": 10} | interval | more


def evaluation(before: str, after: str, reference: str = "uno dos", clips: int = 10, **more) -> tuple[dict, list]:
    """Results and records of a base and a fine-tuned model that say one thing each of every clip."""
    rows, records = [], []
    for model, text in (("base", before), ("fine-tuned", after)):
        rows.append(row(model, score(reference, text).wer, **more))
        records += [record(model, f"clip {number}", reference, text, **more) for number in range(clips)]
    return {"rows": rows, "split": "test"}, records
