"""Networks in three stages: image, clicks, refinement."""
