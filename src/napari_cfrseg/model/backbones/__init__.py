"""Backbones the published networks use, where timm has none that fits exactly."""
