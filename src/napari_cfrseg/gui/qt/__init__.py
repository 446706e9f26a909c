"""Widgets and threads that know Qt and nothing of segmentation."""
