"""The analyst."""
