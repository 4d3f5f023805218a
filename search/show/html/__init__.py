"""Pages for a browser, in parts that a report and the live page share: templates, a style sheet, a
script. `assets.py` has what is sent as it is, `templates.py` what is filled in."""
