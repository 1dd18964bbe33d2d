"""The metric module for `evaluate`, loaded as a reader of the notebooks would, in a process of its own and offline."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lengua.scoring import bootstrap_interval, score

REFERENCES = ["¿Dónde está la estación?", "El niño come pan.", "Flickan på ön."] * 5
PREDICTIONS = ["Donde está la estación", "El niño no come pan.", "flickan på en ö"] * 5
SPEAKERS = [f"speaker{k}" for k in range(15)]
# jiwer is the arithmetic of the usual metric: (S + D + I) over the words of all references.
SCRIPT = """
import json, sys, evaluate, jiwer
references, predictions, speakers = json.loads(sys.argv[1])
metric = evaluate.load("metrics/lengua_wer")
told = [metric.compute(references=references, predictions=predictions, **how) for how in ({}, {"view": "raw"})]
for reference, prediction in zip(references, predictions):
    metric.add(reference=reference, prediction=prediction)
told.append(metric.compute(speakers=speakers))
print(json.dumps([*told, jiwer.wer(references, predictions)]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the metric computes: by default, raw, over speakers; and jiwer's rate of the texts as they are."""
    pytest.importorskip("evaluate")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hf"))}
    command = [sys.executable, "-c", SCRIPT, json.dumps([REFERENCES, PREDICTIONS, SPEAKERS])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_evaluate_loads_our_metric_offline(told):
    plain, raw, by_speaker, usual = told
    ours = score(REFERENCES, PREDICTIONS)
    assert (plain["wer"], plain["cer"], plain["utterances"]) == (ours.wer, ours.cer, 15)
    interval = bootstrap_interval(ours.counts["errors"], ours.counts["words"])
    assert (plain["wer_low"], plain["wer_high"]) == interval and plain["unit"] == "utterance"
    assert raw["wer"] == usual > plain["wer"]
    assert by_speaker["unit"] == "speaker" and by_speaker["wer"] == plain["wer"]
