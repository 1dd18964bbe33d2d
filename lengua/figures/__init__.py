"""Everything that is drawn: WER and loss, runs side by side, what a feature store holds."""
