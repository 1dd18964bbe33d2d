"""Pages to read in a browser, each one file that needs no network: `write_page` of an evaluation,
`write_comparison` of several runs; `summary` says the same in a few lines for a terminal.
"""

from lengua.pages.comparison import write_comparison
from lengua.pages.evaluation import write_page
from lengua.pages.terminal import summary
from lengua.pages.verdicts import Verdict, headline, verdicts

__all__ = ["Verdict", "headline", "summary", "verdicts", "write_comparison", "write_page"]
