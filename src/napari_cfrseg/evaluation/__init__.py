"""Robot users, metrics, data sets and reports."""
