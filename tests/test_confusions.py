"""What is taken for what: words by alignment, letters within words that are alike."""

from lengua.evaluation.confusions import Confusion, count_confusions


def record(number: int, reference: str, hypothesis: str, **more) -> dict:
    return {
        "id": f"c{number}",
        "reference": reference,
        "hypothesis": hypothesis,
        "duration_s": 5.0,
        "flags": [],
        **more,
    }


def test_words_by_hand():
    found = count_confusions(
        [
            record(0, "¿Él vino ayer?", "el vino ayer"),
            record(1, "Él no vino.", "El no bino"),
            record(2, "La casa blanca.", "La casa"),
            record(3, "Hola", "hola hola amigo"),
        ]
    )
    assert found.substitutions == (Confusion("él", "el", 2, "c0"), Confusion("vino", "bino", 1, "c1"))
    assert found.deletions == (Confusion("blanca", "", 1, "c2"),)
    assert found.insertions == (Confusion("", "amigo", 1, "c3"), Confusion("", "hola", 1, "c3"))
    assert found.letters == (Confusion("é", "e", 2, "c0"), Confusion("v", "b", 1, "c1"))
    assert found.left_out == 0


def test_letters_of_spanish():
    pairs = [("zapato", "sapato"), ("cereza", "seresa"), ("vaca", "baca"), ("corazón", "corazon"), ("hacha", "acha")]
    found = count_confusions([record(k, said, heard) for k, (said, heard) in enumerate(pairs)])
    assert {(one.said, one.heard): one.count for one in found.letters} == {
        ("z", "s"): 2, ("c", "s"): 1, ("v", "b"): 1, ("ó", "o"): 1, ("h", ""): 1
    }  # fmt: skip
    assert found.letters[0] == Confusion("z", "s", 2, "c0")


def test_letters_of_unlike_words_say_nothing():
    assert count_confusions([record(0, "perro", "gato"), record(1, "sol", "luna")]).letters == ()


def test_loops_are_left_out_and_counted():
    looped = record(1, "uno dos", "uno dos " * 20)
    flagged = record(2, "uno dos", "uno tres", flags=["looped"])
    found = count_confusions([record(0, "uno dos", "una dos"), looped, flagged])
    assert (found.left_out, [one.said for one in found.substitutions], found.insertions) == (2, ["uno"], ())


def test_edges_and_order():
    nothing = count_confusions([])
    assert nothing.substitutions == nothing.letters == () and nothing.left_out == 0
    assert count_confusions([record(0, "", "")]).insertions == ()
    assert count_confusions([record(0, "", "hola")]).insertions == (Confusion("", "hola", 1, "c0"),)
    assert count_confusions([record(0, "hola", "")]).deletions == (Confusion("hola", "", 1, "c0"),)
    found = count_confusions([record(k, f"b{k} a{k}", "") for k in range(9)], most=3)
    assert [one.said for one in found.deletions] == ["a0", "a1", "a2"]
