"""The click dock: clicks in, labels out."""
