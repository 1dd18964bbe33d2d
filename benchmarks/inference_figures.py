"""What benchmarks/inference.py makes of seconds and words: figures, who is the fastest, tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from inference_clips import Clip
from inference_peers import BORROWED, OURS, SHORT
from inference_sides import Cold
from recording import markdown

from lengua.scoring import bootstrap_unit, compare_by_bootstrap, score

WORST = 0.10
"""A program whose WER is so much above ours is shown, but is not the one to beat: fast nonsense is no peer."""
NOT_WORSE = 0.02
"""The 95 % interval of our WER minus the fastest peer's must end below this."""


@dataclass(frozen=True)
class Figures:
    """What one program did with the same clips as all others; rates are fractions."""

    ms: float
    """Mean of a clip."""
    ms_median: float
    rtf: float
    """Seconds of work for a second of speech."""
    wer: float
    ours_minus: float = 0.0
    """Our WER minus its own."""
    low: float = 0.0
    """Of the 95 % interval of that, by the paired bootstrap."""
    high: float = 0.0


def figures(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict[str, Figures]:
    """Return the figures of each program; one a clip of seconds and of texts."""
    references, speakers = [clip.text for clip in clips], [clip.speaker for clip in clips]
    scores = {name: score(references, said) for name, said in texts.items()}
    ours, speech, found = scores[OURS].counts, sum(clip.seconds for clip in clips), {}
    for name, taken in seconds.items():
        theirs = scores[name]
        paired = compare_by_bootstrap(theirs.counts["errors"], ours["errors"], ours["words"], speakers)
        times = (1000 * mean(taken), 1000 * median(taken), sum(taken) / speech)
        found[name] = Figures(*times, theirs.wer, paired.difference, paired.low, paired.high)
    return found


def fastest(cost: dict[str, float], wer: dict[str, float]) -> str | None:
    """Return the program that takes the least, other than ours and not absurd (`WORST`); None where there is none."""
    peers = [name for name in cost if name != OURS and wer[name] <= wer[OURS] + WORST]
    return min(peers, key=cost.__getitem__, default=None)


def fastest_without(found: dict[str, Figures], names: Sequence[str]) -> str | None:
    """Return the fastest peer by the mean of a clip, some left out."""
    found = {name: one for name, one in found.items() if name not in names}
    return fastest({name: one.ms for name, one in found.items()}, {name: one.wer for name, one in found.items()})


def verdict(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict:
    """Return what the last line says of these clips: the fastest peer, and how we stand beside it."""
    found = figures(clips, seconds, texts)
    peer, own, padding = (fastest_without(found, names) for names in ((), (BORROWED,), (BORROWED, SHORT)))
    ours, theirs = found[OURS], found.get(peer)
    return {
        "fastest_peer": peer,
        "speedup": round(theirs.ms / ours.ms, 2) if theirs else None,
        "fastest_as_its_users_run_it": own,
        "speedup_as_its_users_run_it": round(found[own].ms / ours.ms, 2) if own else None,
        "fastest_padding_peer": padding,
        "speedup_padding": round(found[padding].ms / ours.ms, 2) if padding else None,
        "wer_peer": round(theirs.wer, 4) if theirs else None,
        "wer_ours": round(ours.wer, 4),
        "difference": [round(value, 4) for value in (theirs.ours_minus, theirs.low, theirs.high)] if theirs else None,
        "not_worse": theirs.high < NOT_WORSE if theirs else None,
        "clips": len(clips),
        "speakers": len({clip.speaker for clip in clips}),
        "resampled": bootstrap_unit([clip.speaker for clip in clips]),
        "mean_seconds": round(mean(clip.seconds for clip in clips), 2),
        "programs": {name: {key: round(value, 4) for key, value in asdict(one).items()} for name, one in found.items()},
    }


def by_set(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict[str, dict]:
    """Return the verdict on the clips of each set."""
    verdicts = {}
    for title in dict.fromkeys(clip.set for clip in clips):
        at = [place for place, clip in enumerate(clips) if clip.set == title]
        part = [{name: [row[place] for place in at] for name, row in rows.items()} for rows in (seconds, texts)]
        verdicts[title] = verdict([clips[place] for place in at], *part)
    return verdicts


def clip_lines(told: dict, cold: dict[str, Cold]) -> list[str]:
    """Return the table of one verdict, with memory and cold start where they were measured."""
    ours, rows = told["programs"][OURS], []
    for name, one in told["programs"].items():
        interval = f"{100 * one['ours_minus']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
        row = [titled(name, one["wer"], ours["wer"]), f"{one['ms']:.0f} / {one['ms_median']:.0f}"]
        row += [f"{one['ms'] / ours['ms']:.1f}", f"{one['rtf']:.3f}", f"{one['wer']:.1%}"]
        row += ["" if name == OURS else interval]
        if cold:
            started = cold.get(name)
            row += [f"{started.peak_mb:,.0f}", f"{started.first_text_s:.1f}"] if started else ["", ""]
        rows.append(row)
    head = ["greedy, one clip at a time", "ms a clip, mean / median", "times ours", "real-time factor", "WER"]
    head += ["ours minus it, points (95 %)", *(["peak MB", "s from start to first text"] if cold else [])]
    return markdown(head, rows)


def set_lines(sets: dict[str, dict]) -> list[str]:
    """Return the table of milliseconds and WER by set."""
    names = next(iter(sets.values()))["programs"]
    head = ["by set", *(f"{title}: {what}" for title in sets for what in ("ms a clip", "WER"))]
    rows = [[name] for name in names]
    for told in sets.values():
        for row, one in zip(rows, told["programs"].values(), strict=True):
            row += [f"{one['ms']:.0f}", f"{one['wer']:.1%}"]
    return markdown(head, rows)


def long_verdict(heard: dict[str, tuple[float, str]], text: str, seconds: float) -> dict:
    """Return who was the fastest with the long recording, and how we stand beside it."""
    wer = {name: score(text, said).wer for name, (_, said) in heard.items()}
    cost = {name: taken for name, (taken, _) in heard.items()}
    peer = fastest(cost, wer)
    return {
        "fastest_peer": peer,
        "speedup": round(cost[peer] / cost[OURS], 2) if peer else None,
        "minutes": round(seconds / 60, 2),
        "programs": {
            name: {"seconds": round(cost[name], 2), "times_real_time": round(seconds / cost[name], 1), "wer": wer[name]}
            for name in cost
        },
    }


def long_lines(told: dict) -> list[str]:
    """Return the table of the long recording."""
    programs = told["programs"]
    ours = programs[OURS]
    rows = []
    for name, one in programs.items():
        row = [titled(name, one["wer"], ours["wer"]), f"{one['seconds']:.1f}", f"{one['times_real_time']:.1f}"]
        rows.append([*row, f"{one['seconds'] / ours['seconds']:.2f}", f"{one['wer']:.1%}"])
    return markdown([f"{told['minutes']:g} minutes in one", "seconds", "times real time", "times ours", "WER"], rows)


def titled(name: str, wer: float, ours: float) -> str:
    """Return the name of a row, marked where the program does not count as a peer."""
    return name if wer <= ours + WORST else f"{name} (not counted)"
