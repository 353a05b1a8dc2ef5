"""Operators of the FLUX provider."""
