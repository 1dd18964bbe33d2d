"""Pages to read in a browser, each one file that needs no network: `write_page` of an evaluation,
`write_comparison` of several runs; `summary` says the same in a few lines for a terminal.
"""

from lengua.evaluation.report.html import summary_lines, write_comparison, write_page
from lengua.evaluation.report.significance import Verdict, headline, judge_rows

__all__ = ["Verdict", "headline", "judge_rows", "summary_lines", "write_comparison", "write_page"]
