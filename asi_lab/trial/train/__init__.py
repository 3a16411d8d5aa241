"""Training of one language model, and the files it leaves: trusted code in the trial process."""
