"""Hook of the FLUX provider."""
