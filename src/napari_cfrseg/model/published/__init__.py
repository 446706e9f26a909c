"""The papers' networks and their published weights."""
