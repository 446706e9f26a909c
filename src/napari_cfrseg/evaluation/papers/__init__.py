"""The protocols, data sets and predictors that the papers publish."""
