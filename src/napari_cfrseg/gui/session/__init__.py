"""Sessions in the window: autosave, open, save, import."""
