"""Evaluating one candidate: `evaluator.py` says what is asked, `stages.py` does the cheapest first.
`learn.py` is its quality (`train.py` the recipe, `schedule.py` how long, `course.py` and
`checkpoint.py` how it goes on after a rung or a kill, `pretrain.py` what may come before,
`shared.py` weights of one network for all, `score.py` the number); `latency.py` is its speed on the
rewritten graph, `decode.py` that of a step of generation, `quiet.py` the silence that measuring
needs, `machine.py` where; `proxies.py` are numbers without training, and `failure.py` is what
becomes of a candidate that fails."""
