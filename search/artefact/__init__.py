"""The artefact: an architecture of a search, trained, measured and proven, as a folder.

    keep(architecture, spec, folder)    makes it
    load(folder)                        the architecture and its model, checked

Next: `make.py`.
"""
