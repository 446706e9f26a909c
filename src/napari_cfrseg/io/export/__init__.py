"""Labels and objects in the formats other programs read."""
