"""Evaluation: everything between a trained model and the numbers that enter its fitness.

    trial process                          scoring process
    model ids -> hidden states             loss, output head, labels, lm-eval
    serve.serve      <--- wire frames ---> client.HiddenStates -> lm.HiddenStateLM -> run.evaluate

Candidate code never runs where the labels are, and what it returns for a sequence is compared, on
sampled positions, with what it returns for the bare prefix. `tasks.build_tasks` makes the offline
task set once per lab; `scorer` is the scoring process itself.
"""
