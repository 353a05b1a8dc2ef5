"""Stored outputs: a prediction's pictures are fetched, checked, named, and put where they last."""
