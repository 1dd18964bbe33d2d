"""Teach Whisper your mother tongue on the machine you have, then talk to it.

    import lengua

    lengua.load("runs/demo").transcribe("clip.mp3").text         # a run, a model folder or a Hub id

    lengua.features(lengua.FeatureOptions("sample:es", Path("stores/es")))
    lengua.train(lengua.TrainOptions("stores/es", Path("runs/es"), minutes=60))
    lengua.evaluate(lengua.EvaluateOptions("runs/es", "stores/es", out=Path("runs/es/evaluation")))
    lengua.publish(lengua.PublishOptions(Path("runs/es"), to="owner/name"))

A stage takes its options, and returns a frozen result; the command line prints that result. The import is light: torch,
transformers and gradio are loaded by the stage that needs them.
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> where it is defined. Imported at its first use, so that `import lengua` loads nothing.
_LAZY = {
    "load": "lengua.inference.transcriber:Transcriber",
    "features": "lengua.data.features:build",
    "train": "lengua.training.train:train",
    "evaluate": "lengua.evaluation.evaluate:evaluate",
    "publish": "lengua.publishing.publish:publish",
    "FeatureOptions": "lengua.options:FeatureOptions",
    "TrainOptions": "lengua.options:TrainOptions",
    "EvaluateOptions": "lengua.options:EvaluateOptions",
    "PublishOptions": "lengua.options:PublishOptions",
    "LenguaError": "lengua.runtime.errors:LenguaError",
    "RequestError": "lengua.runtime.errors:RequestError",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'lengua' has no attribute {name!r}; it has {', '.join(_LAZY)}")
    module, _, attribute = _LAZY[name].partition(":")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
