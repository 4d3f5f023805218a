"""Evaluating one candidate: `evaluator.py` is the whole, `train.py` its quality, `latency.py` its
speed on the rewritten graph, `quiet.py` the silence that measuring needs, `machine.py` where,
`failure.py` what becomes of a candidate that fails."""
