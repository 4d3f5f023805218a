"""Running a search: `log.py` keeps its trials, `pool.py` evaluates them, `loop.py` is the whole."""
