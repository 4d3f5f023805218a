"""A page in a browser, to look at searches; it changes nothing.

    request -> guard (hosts, headers) -> login (who looks) -> pages -> store
                                                           -> live  -> hub of the watches

Starlette and uvicorn are imported here only. It runs in the loop of the server, beside gRPC; what
may block runs in threads of its own, what needs torch in a process of its own (`drawings.py`).
Next: `site.py`, which serves it; `app.py`, the table of its routes.
"""
