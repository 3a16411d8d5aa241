"""The process that holds the labels: everything between a trained model and the numbers of its fitness.

    trial and server              scorer
    token ids -> residual         loss, output head, labels, lm-eval
    answering.serve  <-- frames of common/wire.py -->  client.Remote -> lm.RemoteLM -> harness.evaluate

Candidate code never runs where the labels are, and what it returns for a sequence is compared, at sampled
positions, with what it returns for the bare prefix. `tasks/` makes the offline tasks, once for each lab.
"""
