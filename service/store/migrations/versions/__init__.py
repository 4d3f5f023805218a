"""One module a step, `v0001_initial.py` first. A step that was released is never changed."""
