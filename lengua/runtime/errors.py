"""The two errors that lengua raises on purpose. Each is one sentence of three clauses: expected, found, do this."""


class LenguaError(Exception):
    """A run that failed: what was expected, what was found, what to do. The command line exits with 1."""

    exit_code = 1

    def __init__(self, expected: str, found: str, do: str):
        self.expected, self.found, self.do = expected, found, do
        super().__init__(f"expected {expected}; found {found}; {do}")

    def __reduce__(self):
        return type(self), (self.expected, self.found, self.do)


class RequestError(LenguaError):
    """A request that cannot be carried out as it was put (a missing file, an unknown name). Exits with 2."""

    exit_code = 2
