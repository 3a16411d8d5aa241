"""The researcher."""
