"""Propagation through a stack, in the window."""
