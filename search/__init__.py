"""The architecture search: spaces, blocks and the search loop (not built yet).

It may import `formwright.compiler`; it must not know the service, gRPC or SQLAlchemy.
"""

if __name__ != "formwright.search":
    raise ImportError("import formwright.search, not search")

__all__: list[str] = []
