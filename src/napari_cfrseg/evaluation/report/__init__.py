"""Results of a run: rows, tables, curves, comparisons."""
