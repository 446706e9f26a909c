"""From clicks to masks, without a display."""
