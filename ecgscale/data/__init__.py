"""ECG records: the CODE format, its sources, a packed store, splits, checks, a synthetic population."""
