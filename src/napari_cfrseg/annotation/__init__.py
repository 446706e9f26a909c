"""Many objects on one image: events, labels, undo."""
