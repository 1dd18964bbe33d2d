"""How much a day: counts, midnight, the cap of all, addresses behind proxies, many threads."""

import threading

import pytest

from lengua.app.limits import SECONDS_PER_DAY, Allowance, visitor_address


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self, now: float):
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_turns_and_replies_are_counted_apart_for_each_visitor():
    allowance = Allowance(turns=2, replies=1)
    ana, bea = allowance.visitor("192.0.2.1"), allowance.visitor("192.0.2.2")
    assert [allowance.turn(ana) for _ in range(3)] == [True, True, False]
    assert [allowance.reply(ana) for _ in range(2)] == [True, False]
    assert allowance.turn(bea) and allowance.reply(bea)
    assert allowance.left(ana) == {"turns": 0, "replies": 0, "tokens": 2_000_000}


def test_midnight_brings_all_of_it_back():
    clock = Clock(20_000 * SECONDS_PER_DAY - 1)
    allowance = Allowance(turns=1, replies=1, tokens=10, now=clock)
    assert allowance.turn("a") and allowance.reply("a", 10) and not allowance.turn("a")
    clock.now += 1
    assert allowance.left("a") == {"turns": 1, "replies": 1, "tokens": 10}
    assert allowance.turn("a") and allowance.reply("a", 10)


def test_the_tokens_are_of_all_visitors_and_what_is_free_goes_on():
    allowance = Allowance(tokens=100)
    assert allowance.reply("a", 60) and not allowance.reply("b", 60) and allowance.reply("b", 40)
    assert not allowance.reply("c", 1)
    assert allowance.reply("c", 0)
    assert allowance.left("c")["tokens"] == 0


def test_what_is_refused_is_not_counted():
    allowance = Allowance(replies=1, tokens=10)
    assert not allowance.reply("a", 11)
    assert allowance.left("a") == {"turns": 300, "replies": 1, "tokens": 10}


def test_a_visitor_is_a_hash_that_only_this_process_makes():
    one, other = Allowance(), Allowance()
    mark = one.visitor("192.0.2.1", "Firefox")
    assert mark == one.visitor("192.0.2.1", "Firefox") != other.visitor("192.0.2.1", "Firefox")
    assert "192" not in mark and len(mark) == 24
    assert (
        len({one.visitor("a", "b"), one.visitor("ab"), one.visitor("a", None), one.visitor(), one.visitor("\ud800")})
        == 5
    )


def test_the_table_is_bounded_and_those_seen_last_are_remembered():
    allowance = Allowance(turns=1, visitors=3)
    for name in "abc":
        assert allowance.turn(name)
    assert not allowance.turn("a")  # seen again
    assert allowance.turn("d")  # b goes
    assert not allowance.turn("a") and not allowance.turn("c") and allowance.turn("b")
    assert len(allowance._taken) == 3


def test_threads_take_no_more_than_there_is():
    allowance = Allowance(turns=500, tokens=700)
    taken = []

    def take(number: int) -> None:
        taken.extend(("turn", allowance.turn("a")) for _ in range(200))
        taken.extend(("reply", allowance.reply(f"visitor {number}", 1)) for _ in range(100))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(("turn", True)) == 500 and taken.count(("reply", True)) == 700
    assert len(taken) == 8 * 300


@pytest.mark.parametrize(
    "host, forwarded, address",
    [
        ("9.9.9.9", None, "9.9.9.9"),
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),  # nobody's proxy: a visitor that writes headers
        ("10.16.1.2", "1.1.1.1", "1.1.1.1"),
        ("10.16.1.2", "1.2.3.4, 1.1.1.1", "1.1.1.1"),  # only the proxy's own entry
        ("10.16.1.2", "1.1.1.1:443", "1.1.1.1"),
        ("10.16.1.2", "junk", "10.16.1.2"),
        ("127.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", None, "2001:db8:1:2::/64"),
        ("10.0.0.1", "[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("::ffff:9.9.9.9", None, "9.9.9.9"),
        (None, "1.1.1.1", "1.1.1.1"),
        (None, None, ""),
        ("testclient", "", ""),
    ],
)
def test_the_address_that_counts(host, forwarded, address):
    assert visitor_address(host, forwarded) == address
