"""Offline tasks, made from held-out text once for each lab: passages, probes, and the files lm-eval reads."""
