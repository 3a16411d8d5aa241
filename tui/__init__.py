"""The Textual app. It is not part of this version."""
