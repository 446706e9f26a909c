"""Annotated images and stacks, and the objects to click in them."""
