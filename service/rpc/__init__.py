"""What each RPC does: plain functions, a message and the store in, a message out.

They must not know grpc. `methods.py` is the table of all of them.
"""
