"""pages: what stands in report.html and in a comparison, that data stay data, and that nothing leaves the page."""

import base64
import io
import re
import shutil
import subprocess
import threading
from dataclasses import asdict
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from report_data import evaluation, record, row

from lengua.audio import as_flac
from lengua.evaluation.report import rendering, summary_lines, write_comparison, write_page
from lengua.evaluation.report.html import MAX_WORDS_SHOWN, word_diff
from lengua.evaluation.report.rendering import bar_scale, bar_svg
from lengua.evaluation.report.tables import Table
from lengua.runtime.files import ASSETS
from lengua.scoring import score

ATTACK = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&"
VOID = {"meta", "link", "img", "br", "rect", "line", "path", "audio"}


def page_of(tmp_path, results, records, store=None, **more) -> str:
    return write_page(tmp_path / "report.html", results | more, records, store).read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects tags, addresses and text of a page; fails where tags are not closed in order. Any white is a space."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_a_page_holds_every_section_it_has_data_for(tmp_path):
    results, records = evaluation("uno x", "uno dos y")
    groups = [
        {"key": "accent", "group": "México", "clips": 9, "speakers": 1, "words": 90, "small": "1 speaker"}
        | {"wer": 0.2, "wer_low": 0.1, "wer_high": 0.3, "difference_low": 0.01, "difference_high": 0.2}
    ]
    findings = [{"what": "It goes round in circles.", "cause": "No silence.", "cure": "Pad it.", "severity": "broken"}]
    confusions = {"letters": [{"said": "b", "heard": "", "count": 7}], "vowels": []}
    text = page_of(
        tmp_path, results, records, groups=groups, findings=findings, confusions=confusions, notes=["3 leaks."]
    )
    page = Outline(text)
    for part in (
        "Undecided on test",
        "3 leaks.",
        "It goes round in circles. broken",
        "Pad it.",
        "base, padded",
        "By accent",
        "9 clips, 1 speaker, 90 words; worse than the rest ; small",
        "20.0 % (10.0 to 30.0)",
        "Letters in words said heard times b – 7",
        "1 error in 2 words",
        "Before and after",
        "95 % bootstrap over utterances",
    ):
        assert part in page.text, part
    assert "vowels" not in page.text
    assert page.count("article") == 1 + 10 + 10
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert page.count("svg") == 3 and page.count("script") == 0


def test_what_is_missing_is_left_out(tmp_path):
    page = Outline(page_of(tmp_path, {"rows": []}, []))
    headings = [text for text in page.texts if text.strip()]
    assert "Nothing was measured" in headings and "How it was measured" in headings
    for part in (
        "What the errors tell",
        "Word error rate",
        "Who is understood",
        "taken for what",
        "most errors",
        "Before",
    ):
        assert not any(text.startswith(part) for text in headings if not text.startswith("Word error rate:")), part
    alone = page_of(tmp_path, {"rows": [row("base", 0.0)]}, [record("base", "1", "", "")])
    assert "most errors" not in alone and "Before and after" not in alone


def test_what_the_error_analysis_returns_is_shown(tmp_path):
    from lengua.evaluation.confusions import count_confusions
    from lengua.evaluation.diagnosis import diagnose_failures
    from lengua.evaluation.failure_modes import find_failure_modes
    from lengua.evaluation.subgroups import measure_groups

    results, records = evaluation("uno vos", "bla " * 60, reference="uno dos")
    mine = [record for record in records if record["model"] == "fine-tuned"]
    findings = diagnose_failures(find_failure_modes(mine))
    found = {
        "findings": [asdict(finding) for finding in findings],
        "groups": [asdict(group) for group in measure_groups(mine)],
        "confusions": {"substitutions": [one.as_json() for one in count_confusions(records[:10]).substitutions]},
    }
    page = Outline(page_of(tmp_path, results, records, **found, about="fine-tuned, padded"))
    assert findings and all(finding.cure in page.text for finding in findings)
    assert "By duration" in page.text and "By accent" not in page.text
    assert "Not told of any clip: accent, age, gender, variant, sentence domain." in page.text
    assert "Words said heard times dos vos 10" in page.text


def test_data_stay_data(tmp_path):
    """A transcript, an id, an accent, a finding: whatever they hold, nothing of it becomes a tag."""
    results, records = evaluation(ATTACK, f"y {ATTACK} z", reference=f"{ATTACK} uno", set=ATTACK)
    for number, one in enumerate(records):
        one |= {"id": f"{ATTACK}{number % 10}", "speaker": ATTACK, "flags": [ATTACK]}
    for one in results["rows"]:
        one |= {"set": ATTACK, "decoding": ATTACK}
    group = {"key": ATTACK, "group": ATTACK, "clips": 1, "speakers": 1, "words": 2, "wer": 0.5, "small": True}
    finding = {"what": ATTACK, "cause": ATTACK, "cure": ATTACK, "severity": ATTACK}
    text = page_of(
        tmp_path,
        results | {"attribution": ATTACK, "model": ATTACK, "language": ATTACK},
        records,
        groups=[group],
        findings=[finding],
        confusions={ATTACK: [{"said": ATTACK, "heard": ATTACK, "count": 1}]},
        notes=[ATTACK],
        about=ATTACK,
    )
    page = Outline(text)
    assert "<script" not in text and "<img" not in text
    assert page.text.count("alert(1)") > 50
    assert page.count("script") == page.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.addresses == ["data:,"]


def test_a_page_may_load_nothing(tmp_path, tiny_store):
    results, records = evaluated(tiny_store)
    page = Outline(page_of(tmp_path, results, records, tiny_store))
    (policy,) = [tags["content"] for _, tags in page.tags if tags.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy
    assert len(page.addresses) > 3 and all(address.startswith("data:") for address in page.addresses)
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|@font-face|</", style)


def evaluated(store) -> tuple[dict, list]:
    """An evaluation of the store's test clips in which every word is wrong."""
    split = store.split("test")
    records = [
        record(model, clip.id, clip.text, text, speaker=clip.speaker)
        for model, text in (("base", "otra cosa"), ("fine-tuned", "mal"))
        for clip in split
    ]
    return {"rows": [row("base", 2.0), row("fine-tuned", 1.0)], "split": "test"}, records


def test_the_worst_clips_can_be_played(tmp_path, tiny_store):
    page = Outline(page_of(tmp_path, *evaluated(tiny_store), tiny_store))
    players = [attributes for tag, attributes in page.tags if tag == "audio"]
    kept = {base64.b64encode(clip.audio).decode() for clip in tiny_store.split("test")}
    assert {one["src"].partition("base64,")[2] for one in players} == kept and len(kept) == 5
    assert all(one["src"].startswith("data:audio/wav;") and one["preload"] == "none" for one in players)
    assert "no sound" not in page.text
    assert dict(page.tags)["dd"].get("lang", "es") == "es"


def test_the_worst_come_first_and_a_loop_is_cut(tmp_path):
    results, records = evaluation("uno x", "uno dos")
    records += [record("fine-tuned", "loop", "uno dos", "bla " * 500), record("base", "loop", "uno dos", "uno dos")]
    page = Outline(page_of(tmp_path, results, records))
    assert page.text.index("500 errors in 2 words loop") > 0
    assert f"{500 - MAX_WORDS_SHOWN} more words" in page.text
    assert (
        page.count("ins") == 1 + 2 * MAX_WORDS_SHOWN
    )  # the legend's, and the loop's among the worst and among the examples


def test_equal_inputs_give_equal_bytes(tmp_path, tiny_store):
    results, records = evaluated(tiny_store)
    pages = {write_page(tmp_path / name, results, records, tiny_store).read_bytes() for name in ("a.html", "b.html")}
    assert len(pages) == 1


def test_bars_hold_for_odd_figures():
    assert 'width="100.00%"' in bar_svg(3.0, None, None, 2.0, "base", "a")
    assert 'width="0.00%"' in bar_svg(0.0, 0.0, 0.0, bar_scale([row("base", 0.0)]), "base", '"<')
    assert "&quot;&lt;" in bar_svg(0.0, 0.0, 0.0, 1.0, "base", '"<')
    assert bar_scale([]) == 1


def run(name: str, wer: float | None, high: float | None = None) -> SimpleNamespace:
    return SimpleNamespace(run=name, wer=wer, wer_low=None if high is None else wer / 2, wer_high=high)


def test_a_comparison_tells_the_best_and_what_is_too_close(tmp_path):
    table = Table(["run", "what differs", "best dev WER"], [["a", ATTACK, "20.0 %"], ["b", "–", "21.0 %"]], "ll")
    (tmp_path / "curves.png").write_bytes(b"PNG")
    runs = [run("b", 0.21), run("a", 0.2, 0.3), run("c", None)]
    path = write_comparison(tmp_path / "compare.html", table, runs, tmp_path / "curves.png", ["a note"])
    page = Outline(path.read_text(encoding="utf-8"))
    assert "Lowest on dev: a, 20.0 % (10.0 to 30.0)" in page.text
    assert "b lies within the interval of a: the order may be chance" in page.text and "a note" in page.text
    assert page.count("svg") == 2 and page.count("script") == 0
    assert page.addresses == ["data:,", f"data:image/png;base64,{base64.b64encode(b'PNG').decode()}"]


def test_a_comparison_of_runs_that_did_nothing_yet_is_a_page_too(tmp_path):
    text = write_comparison(tmp_path / "c.html", Table(["run"], [["a"]]), [run("a", None)], None).read_text()
    page = Outline(text)
    assert "No run was evaluated on dev" in page.text and page.count("svg") == 0


def test_causes_of_one_sign_stand_together_in_their_order(tmp_path):
    signs = [("It loops.", "first"), ("It loops.", "second"), ("It is empty.", "third")]
    findings = [{"what": what, "cause": cause, "cure": f"cure of the {cause}"} for what, cause in signs]
    page = Outline(page_of(tmp_path, {"rows": []}, [], findings=findings))
    assert page.text.count("It loops.") == 1
    assert "Likely cause first Cure cure of the first Or else second Cure" in page.text
    lines = [
        "It loops.",
        "  cause: first",
        "  cure: cure of the first",
        "  or else: second",
        "  cure: cure of the second",
    ]
    assert summary_lines({"rows": [], "findings": findings}, [])[1:6] == lines


def test_the_terminal_says_the_same_shortly():
    results, records = evaluation("uno x", "uno dos")
    findings = [{"what": "Accents.", "cause": "Few.", "cure": "More."}]
    groups = [
        {"key": "age", "group": str(n), "wer": n / 10, "wer_low": None, "wer_high": None, "small": n > 4}
        for n in range(6)
    ]
    lines = summary_lines(results | {"findings": findings, "groups": groups}, records)
    assert lines[0] == "Better on test" and lines[1].startswith("  Better on test (fine-tuned, padded): 50.0 % → 0.0 %")
    assert lines[2:5] == ["Accents.", "  cause: Few.", "  cure: More."]
    assert lines[5:] == ["by age: 4 40.0 %, 3 30.0 %, 2 20.0 %, 1 too small to tell"]
    assert summary_lines({"rows": []}, []) == ["Nothing was measured"]


def test_text_can_be_read_in_light_and_dark():
    """The contrast that WCAG asks of text is 4.5."""
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in style.split("@media")[:2])
    seen = 0
    for colours in (light, light | dark):
        for text, ground in product(("ink", "faint", "good", "bad"), ("page", "panel")):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, colours[text])
            seen += 1
    assert seen == 16


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Words


def shown_words(reference: str, hypothesis: str) -> str:
    """Write words with a sign before each that is wrong."""
    signs = {"equal": "", "substituted": "~", "deleted": "-", "inserted": "+"}
    return " ".join(signs[word.kind] + word.text for word in word_diff(reference, hypothesis))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("Clave incorrecta.", "clave correcta y", "clave +correcta ~y"),
        ("uno dos tres", "uno tres", "uno -dos tres"),
        ("uno", "uno dos", "uno +dos"),
        ("¿Sí, señor?", "si señor", "~si señor"),
        ("uno — dos", "uno dos", "uno dos"),
        ("uno dos", "uno — dos —", "uno — dos —"),
        ("por qué", "por-qué", "por-qué"),
        ("porque", "por-que", "~por-que"),
        ("sí [risas y ruido] no", "sí no", "sí no"),
        ("", "", ""),
        ("", "hola tú", "+hola +tú"),
        ("hola tú", "", "-hola -tú"),
        ("por-qué no", "no", "-por-qué no"),
    ],
)
def test_a_hypothesis_is_shown_as_it_is_written_and_marked_as_it_is_counted(reference, hypothesis, expected):
    assert shown_words(reference, hypothesis) == expected


def test_a_substituted_word_tells_its_reference():
    assert [word.reference for word in word_diff("El perro.", "el gato.")] == ["", "perro."]


def test_marks_are_as_many_as_errors_are_counted():
    texts = ["", "uno", "uno dos", "dos uno dos", "¡Uno, dos, tres!", "cuatro tres dos uno"]
    for reference, hypothesis in product(texts, texts):
        wrong = sum(word.kind != "equal" for word in word_diff(reference, hypothesis))
        assert wrong == score(reference, hypothesis).counts["errors"][0], (reference, hypothesis)


# Sound


def test_sound_is_bounded_and_what_is_left_out_says_so(tiny_store):
    split = tiny_store.split("test")
    ids = split.column("id")
    whole = rendering.make_players(split, ids)
    sizes = [len(whole[id].uri) for id in ids]
    some = rendering.make_players(split, ids, most=sum(sizes) - 1)
    assert sum(len(one.uri or "") for one in some.values()) < sum(sizes)
    assert [one.note for one in some.values()].count(rendering.PAGE_FULL) == 1
    assert {one.note for one in rendering.make_players(split, ids, each=100).values()} == {rendering.TOO_LARGE}
    assert rendering.make_players(split, ["nobody"])["nobody"] == rendering.Player(None, rendering.NOT_KEPT)
    assert rendering.make_players(None, ids)[ids[0]] == rendering.Player(None, rendering.NOT_KEPT)
    train = tiny_store.split("train")  # of which no audio is kept
    assert rendering.make_players(train, [train[0].id])[train[0].id].note == rendering.NOT_KEPT


def test_the_type_of_sound_is_recognised_by_its_bytes(tiny_store):
    samples = tiny_store.split("test")[0].log_mel()[:, 0]
    assert rendering.media_type(as_flac(samples.clip(-1, 1))) == "audio/flac"
    begins = {b"OggS": "audio/ogg", b"ID3\x04": "audio/mpeg", b"\xff\xfb\x90": "audio/mpeg", b"": None, b"text": None}
    begins |= {b"RIFF....WAVE": "audio/wav", b"....ftypM4A ": "audio/mp4", b"\x1a\x45\xdf\xa3": "audio/webm"}
    assert {begin: rendering.media_type(begin) for begin in begins} == begins


def test_what_no_browser_plays_is_written_anew_or_left_out():
    aiff = io.BytesIO()
    soundfile.write(aiff, np.sin(np.arange(8000) / 9).astype("float32"), 16_000, format="AIFF")
    split = FakeSplit({"old": aiff.getvalue(), "broken": b"no sound at all"})
    found = rendering.make_players(split, ["old", "broken"])
    assert found["old"].uri.startswith("data:audio/flac;base64,ZkxhQ")
    assert found["broken"] == rendering.Player(None, rendering.UNREADABLE)


class FakeSplit:
    """Audio by id, in the form of a split of a store."""

    def __init__(self, clips: dict[str, bytes]):
        self.clips = clips

    def column(self, name: str) -> list[str]:
        return list(self.clips)

    def __getitem__(self, place: int):
        return SimpleNamespace(audio=list(self.clips.values())[place])


@pytest.mark.slow
def test_in_a_browser_nothing_is_asked_for_and_nothing_complained_of(tmp_path, tiny_store):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs Chromium")
    write_page(tmp_path / "report.html", *evaluated(tiny_store), tiny_store)
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write((tmp_path / "report.html").read_bytes())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    usual = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    more = ["--window-size=390,900", "--enable-logging=stderr", f"--screenshot={tmp_path / 'page.png'}"]
    address = f"http://127.0.0.1:{server.server_port}/report.html"
    done = subprocess.run([browser, *usual, *more, address], capture_output=True, text=True, timeout=120)
    server.shutdown()
    server.server_close()
    assert (tmp_path / "page.png").stat().st_size > 10_000, done.stderr
    assert asked == ["/report.html"]
    assert "CONSOLE" not in done.stderr
