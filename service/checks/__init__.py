"""What `formwright doctor` looks at, one small function each. `../checkup.py` is the table of them.

None of them changes anything, makes a file, or opens a database that is not there. Next:
`finding.py`, what they say; `look.py`, what they are given.
"""
