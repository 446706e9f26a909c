"""Published checkpoints of the papers' code, read without running what they pickle."""
