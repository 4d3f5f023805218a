"""Generated from proto/ by `make proto`, checked in, never edited. Next: `../convert.py`."""
