"""Click sessions: everything a person did, in one file, replayed anywhere."""
