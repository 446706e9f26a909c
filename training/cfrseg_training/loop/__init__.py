"""The training loop: windows, clicks, losses, steps."""
