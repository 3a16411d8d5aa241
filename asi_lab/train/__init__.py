"""Trusted code that runs in the trial process: model, schedule, training, checkpoint."""
