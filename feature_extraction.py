"""The feature pipeline: speech and its words in, a feature store out.

    python feature_extraction.py sample:es --out stores/sample-es
    python feature_extraction.py folder:recordings --language es --out stores/mine --limit 50

Every clip is decoded to 16 kHz mono, turned into the log-mel spectrogram that Whisper hears (the speech alone, without
the usual padding to 30 s, one byte a value: about 38 kB a clip instead of 960), checked against its text, and written
to Parquet shards. What does not fit is left out and counted by reason. Interrupted, the same command goes on where it
was. It is `lengua features` under another name; --help lists all options, and train.ipynb takes it from here.
"""

import sys

from lengua.cli import main

if __name__ == "__main__":
    sys.exit(main(["features", *sys.argv[1:]]))
