"""From corpora to a feature store: sources, filters, splits, leakage, features, the store itself, streaming."""
