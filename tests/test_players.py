"""Sound inside a page: bounded, of a type that browsers play, or a word on why not."""

from types import SimpleNamespace

from lengua.audio import as_flac
from lengua.evaluation.report import rendering


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


def test_the_type_of_sound_is_told_by_its_bytes(tiny_store):
    samples = tiny_store.split("test")[0].log_mel()[:, 0]
    assert rendering.media_type(as_flac(samples.clip(-1, 1))) == "audio/flac"
    begins = {b"OggS": "audio/ogg", b"ID3\x04": "audio/mpeg", b"\xff\xfb\x90": "audio/mpeg", b"": None, b"text": None}
    begins |= {b"RIFF....WAVE": "audio/wav", b"....ftypM4A ": "audio/mp4", b"\x1a\x45\xdf\xa3": "audio/webm"}
    assert {begin: rendering.media_type(begin) for begin in begins} == begins


def test_what_no_browser_plays_is_written_anew_or_left_out():
    import io

    import numpy
    import soundfile

    aiff = io.BytesIO()
    soundfile.write(aiff, numpy.sin(numpy.arange(8000) / 9).astype("float32"), 16_000, format="AIFF")
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
