"""Labels and clicks in the formats other programs read."""
