"""Trusted code that runs in the trial process: checks, model, training, checkpoint."""
