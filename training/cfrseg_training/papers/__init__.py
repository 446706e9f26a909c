"""Training as the papers published it: recipes, steps, variants."""
