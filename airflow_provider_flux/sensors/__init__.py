"""Sensors of the FLUX provider."""
