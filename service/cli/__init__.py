"""The commands of the service. Each takes its arguments and returns an exit code: 0, 1 if a search
did not succeed, 2 for what cannot be done, with one line that says why.

Next: `common.py`, what they share; `submit.py`, `look.py`, `manage.py`, `serve.py`; `config.py`,
`doctor.py` and `completion.py`, which are about this machine.
"""
