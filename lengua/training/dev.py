"""What an evaluation in training tells: dev WER by generation, its interval, S/D/I, loops, the worst hypotheses."""

from dataclasses import dataclass

from lengua.scoring import bootstrap_interval, is_looped, score

WORST = 2
"""Hypotheses that are shown."""


@dataclass(frozen=True)
class Clips:
    """Errors and words of each clip of dev, always in the same order."""

    errors: list[int]
    words: list[int]
    speakers: list[str] | None


@dataclass(frozen=True)
class Heard:
    """One clip of dev: what was said and what the model wrote."""

    reference: str
    hypothesis: str


def measure_dev(
    references: list[str], hypotheses: list[str], speakers: list[str] | None
) -> tuple[dict[str, float], list[Heard], Clips]:
    """Return what the Trainer logs (rates as fractions, `looped` a share of the clips), the worst, and every clip."""
    measured = score(references, hypotheses)
    low, high = bootstrap_interval(measured.counts["errors"], measured.counts["words"], speakers)
    told = {
        "wer": measured.wer,
        "wer_low": low,
        "wer_high": high,
        **{kind: getattr(measured, kind) for kind in ("substitutions", "deletions", "insertions")},
        "looped": sum(map(is_looped, hypotheses)) / max(1, len(hypotheses)),
    }
    worst = sorted(range(len(references)), key=lambda at: (-int(measured.counts["errors"][at]), at))[:WORST]
    clips = Clips(measured.counts["errors"].tolist(), measured.counts["words"].tolist(), speakers)
    return told, [Heard(references[at], hypotheses[at]) for at in worst if clips.errors[at]], clips


def remark(told: dict, worst: list[Heard]) -> str:
    """Say in a line how an evaluation went; `told` has the names of a record of history.jsonl."""
    kinds = " / ".join(str(int(told[f"dev_{kind}"])) for kind in ("substitutions", "deletions", "insertions"))
    interval = f"{100 * told['dev_wer_low']:.1f} to {100 * told['dev_wer_high']:.1f}"
    text = f"step {told['step']}: dev WER {told['dev_wer']:.1%} ({interval}), S / D / I {kinds}"
    looped = f", {told['dev_looped']:.0%} of the clips in loops" if told["dev_looped"] else ""
    return text + looped + "".join(f"\n  said  {one.reference}\n  heard {one.hypothesis[:200]}" for one in worst)
