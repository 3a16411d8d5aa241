"""Small helpers that know nothing of a lab. Each file is imported by itself."""
