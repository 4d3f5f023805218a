"""The search service: gRPC server, store and client (not built yet).

It may import what `formwright.search` exports; it must not import ray.
"""

if __name__ != "formwright.service":
    raise ImportError("import formwright.service, not service")

__all__: list[str] = []
