"""How commands are called whose own part of the package loads torch at once.

Completion and `--help` need them without it. Next: `compiler/cli.py`, which does the work.
"""

from __future__ import annotations

import argparse


def compile_report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="formwright compile-report",
        description="What the compiler does to a model, site by site, and why it leaves the rest. "
        "The model is run once, in eval mode and without gradients unless --train is given.",
    )
    parser.add_argument(
        "factory",
        metavar="module:factory",
        help="called without arguments; returns model, (model, args) or (model, args, kwargs)",
    )
    parser.add_argument("--train", action="store_true", help="in training mode, with gradients")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--options", metavar="JSON", help="options as for torch.compile")
    return parser
