"""Put the figures of a demo into the README: results.json is kept as benchmarks/demo.json, the table is made from it.

    python benchmarks/record_demo.py --run runs/demo

A test holds the README against benchmarks/demo.json, so that no figure in it is typed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from recording import run

from lengua.evaluation.report.tables import examples, markdown_table
from lengua.runtime.files import read_json, read_jsonl, write_bytes, write_json

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
KEPT = HERE / "demo.json"
SHOWN = 10


@dataclass(frozen=True)
class Options:
    """Record a finished demo."""

    run: Path = Path("runs/demo")
    """The demo's folder."""


def main(options: Options) -> None:
    """Keep the results and renew the README."""
    results = read_json(options.run / "evaluation/results.json")
    hypotheses = read_jsonl(options.run / "evaluation/hypotheses.jsonl")
    results["examples"] = [example._asdict() for example in examples(hypotheses, SHOWN)]
    results["seconds"] = read_json(options.run / "demo.json")["seconds"]
    write_json(KEPT, results)
    write_bytes(README, filled(README.read_text(encoding="utf-8"), results).encode())


def filled(readme: str, results: dict) -> str:
    """Return the README with both generated parts made from the results."""
    for name, part in (("results", results_part(results)), ("examples", examples_part(results))):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(readme), f"README.md lacks <!-- {name} --> ... <!-- /{name} -->"
        readme = pattern.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", readme)
    return readme


def results_part(results: dict) -> str:
    """Return the table and what it was measured with."""
    row, minutes = results["rows"][0], sum(results["seconds"].values()) / 60
    training = results["seconds"]["training"] / 60
    return (
        f"{markdown_table(results['rows'], results.get('verdicts'))}\n"
        f"{row['interval']}; {row['decoding']}. {results['hardware']}; {results['date']}, commit {results['commit']}. "
        f"The demo took {minutes:.0f} minutes, {training:.0f} of them training."
    )


def examples_part(results: dict) -> str:
    """Return truth, before and after as a table."""
    cells = [
        [item[name].replace("|", "\\|") for name in ("reference", "before", "after")] for item in results["examples"]
    ]
    lines = ["| truth | before | after |", "| --- | --- | --- |", *(f"| {' | '.join(line)} |" for line in cells)]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, Options)
