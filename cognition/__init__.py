"""One entry per paper of the field. There are none in this version."""
