"""Triggers of the FLUX provider."""
