"""A calculator for one line of arithmetic: exact, with a few functions, and no access to anything else."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

_DIGITS = 12  # significant ones of a number that is no whole number
_MOST_BITS = 700  # of anything on the way
_CONTEXT = Context(prec=60)
Number = int | Fraction


class CalculatorError(ValueError):
    """What is wrong with an expression, in words."""


def calculate(expression: str) -> str:
    """The value of an expression in digits: whole numbers in full, others to twelve significant digits.

    Raises:
        CalculatorError: it cannot be read, or has no value.
    """
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except CalculatorError:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculatorError(f"the expression {expression.strip()!r} cannot be read") from None
    return value if isinstance(value, str) else shown(value)


def shown(value: Number) -> str:
    """A number in digits, without an exponent."""
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    exact = _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))
    rounded = Context(prec=_DIGITS, rounding=ROUND_HALF_UP).plus(exact)
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(node: ast.expr) -> Number | str:
    match node:
        case ast.Constant(value=bool()):
            raise CalculatorError("only numbers can be calculated with")
        case ast.Constant(value=int() as whole):
            return _bounded(whole)
        case ast.Constant(value=float()):
            return _bounded(Fraction(ast.unparse(node)))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
            return -_number(part) if isinstance(sign, ast.USub) else _number(part)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _bounded(_OPERATORS[type(sign)](_number(left), _number(right)))
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _FUNCTIONS:
            least, most, function = _FUNCTIONS[name]
            if not least <= len(parts) <= most:
                raise CalculatorError(f"{name} does not take {len(parts)} numbers")
            return function(*(_number(part) for part in parts))
        case ast.Call(func=ast.Name(id=name)):
            raise CalculatorError(f"there is no function {name}; there are {', '.join(sorted(_FUNCTIONS))}")
    raise CalculatorError("only numbers, + - * / // % ** << >>, brackets and functions can be used")


def _number(node: ast.expr) -> Number:
    value = _value(node)
    if isinstance(value, str):
        raise CalculatorError("hex must stand outside of everything else")
    return value


def _bounded(value: Number) -> Number:
    exact = Fraction(value)
    if max(exact.numerator.bit_length(), exact.denominator.bit_length()) > _MOST_BITS:
        raise CalculatorError("the numbers become too large")
    return int(exact) if exact.denominator == 1 else exact


def _divided(function: Callable[[Number, Number], Number]) -> Callable[[Number, Number], Number]:
    def checked(left: Number, right: Number) -> Number:
        if right == 0:
            raise CalculatorError("division by zero")
        return function(Fraction(left), Fraction(right))

    return checked


def _power(base: Number, exponent: Number) -> Number:
    if not isinstance(exponent, int) or abs(exponent) > 600:
        raise CalculatorError("an exponent must be a whole number that is not too large")
    if base == 0 and exponent < 0:
        raise CalculatorError("division by zero")
    size = max(Fraction(base).numerator.bit_length(), Fraction(base).denominator.bit_length())
    if size * abs(exponent) > _MOST_BITS:
        raise CalculatorError("the numbers become too large")
    return Fraction(base) ** exponent


def _shift(left: bool) -> Callable[[Number, Number], Number]:
    def shifted(value: Number, places: Number) -> Number:
        if not isinstance(value, int) or not isinstance(places, int) or not 0 <= places <= 600:
            raise CalculatorError(
                "only whole numbers can be shifted, by a whole number of places that is not too large"
            )
        return value << places if left else value >> places

    return shifted


def _root(value: Number) -> Number:
    if value < 0:
        raise CalculatorError("a negative number has no real square root")
    exact = Fraction(value)
    parts = math.isqrt(exact.numerator), math.isqrt(exact.denominator)
    if parts[0] ** 2 == exact.numerator and parts[1] ** 2 == exact.denominator:
        return Fraction(*parts)
    return Fraction(_CONTEXT.sqrt(_CONTEXT.divide(Decimal(exact.numerator), Decimal(exact.denominator))))


def _comb(count: Number, chosen: Number) -> Number:
    if not isinstance(count, int) or not isinstance(chosen, int) or not 0 <= chosen <= 500 or not 0 <= count <= 500:
        raise CalculatorError("comb takes two whole numbers from 0 to 500")
    return math.comb(count, chosen)


def _hex(value: Number) -> str:
    if not isinstance(value, int):
        raise CalculatorError("hex takes a whole number")
    return hex(value)


_OPERATORS: dict[type, Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divided(operator.truediv),
    ast.FloorDiv: _divided(operator.floordiv),
    ast.Mod: _divided(operator.mod),
    ast.Pow: _power,
    ast.LShift: _shift(True),
    ast.RShift: _shift(False),
}
# name: the fewest and the most numbers that it takes, and what it does
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number | str]]] = {
    "abs": (1, 1, abs),
    "comb": (2, 2, _comb),
    "hex": (1, 1, _hex),
    "max": (2, 99, max),
    "min": (2, 99, min),
    "sqrt": (1, 1, _root),
}
