"""The two errors that lengua raises on purpose. Each is one sentence of three clauses: expected, found, do this."""

import re
from importlib import metadata


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


def missing_package(error: ModuleNotFoundError) -> LenguaError | None:
    """Return what to install where an optional package is missing; None where it belongs to no extra of lengua.

    `pip install lengua` is what transcribing needs; training, reports and the app are extras of it.
    """
    try:
        requirements = metadata.requires("lengua") or []
    except metadata.PackageNotFoundError:  # a copied tree, as on a Space
        return None
    package = (error.name or "").partition(".")[0]
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement)[0], re.search(r"extra == .(\w+)", requirement)
        if extra and name.lower() == package.lower():
            return LenguaError(
                f"the package {package}", "that it is not installed", f'run pip install "lengua[{extra[1]}]"'
            )
    return None
