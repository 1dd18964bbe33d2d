"""A key that does not show itself: not in a repr, a log line, a traceback with locals, a pickle or a copy in JSON."""

MAX_LETTERS = 400


class Key:
    """A secret. `reveal()` is called where the request is made, and nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None):
        self._value = (value or "").strip()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Key(…)" if self else "Key()"

    def __reduce__(self):
        raise TypeError("a key is not pickled")

    @property
    def is_possible(self) -> bool:
        """Whether a header can hold it; the error of a library that tries would hold the key."""
        return len(self._value) <= MAX_LETTERS and self._value.isascii() and self._value.isprintable()

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value
