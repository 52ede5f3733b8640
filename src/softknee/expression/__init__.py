"""Ground floor: an activation's formula as an expression, its derivatives, and straight-line code for them.

trace   a Python function over an op table -> Expr
differentiate   Expr -> Expr, one rule per primitive
emit    Expr -> the source of a Python function over an op table, with shared subexpressions computed once
"""

from .derivatives import differentiate, product
from .emission import compile_source, emit
from .graph import Expr, constant, symbol, symbols
from .table import OpTable
from .tracing import trace

__all__ = [
    "Expr",
    "OpTable",
    "compile_source",
    "constant",
    "differentiate",
    "emit",
    "product",
    "symbol",
    "symbols",
    "trace",
]
