"""The games of the environment `reasoning_gym`: generators of the package, with how their problems are solved.

Generators whose problems differ between processes (`ransom_note` draws from a set of strings) or days are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_jax.forge.environments.worlds.reasoning_gym import plans
from hephaestus_jax.forge.environments.worlds.reasoning_gym.plans import Desk, Entry


@dataclass(frozen=True)
class Game:
    """A generator of problems.

    `solve` is its plan, `method` says in sentences how such problems are solved with the calculator, `settings` are
    those of the generator that differ from its own.
    """

    solve: Callable[[Entry, Desk], str]
    method: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


_SUM = ("It is one line of arithmetic, so I put it into the calculator as it stands.",)
_EUCLID = (
    "Euclid's algorithm: the larger number is replaced by its remainder, until the remainder is 0.",
    "The remainder of the division keeps the common divisors, so I go on with it.",
)
GAMES: dict[str, Game] = {
    "chain_sum": Game(plans.expression, _SUM),
    "basic_arithmetic": Game(plans.expression, _SUM),
    "decimal_chain_sum": Game(plans.expression, _SUM),
    "products": Game(plans.expression, _SUM),
    "power_function": Game(plans.power_function, ("A power of a decimal number is nothing to do in one's head.",)),
    "gcd": Game(plans.gcd, _EUCLID),
    "prime_factorization": Game(plans.prime_factorization, (
        "I divide by the smallest prime that goes into it, and go on with what is left.",
        "A prime factor is divided out; the quotient may have more.")),
    "fraction_simplification": Game(plans.fraction_simplification, (
        "I look for the greatest common divisor by Euclid's algorithm, and divide both parts by it.",
        "Remainders first, until one is 0; then both parts are divided by the last divisor.")),
    "leg_counting": Game(plans.leg_counting, ("Each animal's number times its legs, and all of it added up.",)),
    "complex_arithmetic": Game(plans.complex_arithmetic, (
        "Real and imaginary part are worked out one after the other.",
        "I keep the parts with and without i apart.")),
    "simple_equations": Game(plans.simple_equations, (
        "The unknown has to stand alone: constants to the other side, then divided by its factor.",)),
    "simple_geometry": Game(plans.simple_geometry, (
        "The interior angles of a polygon with n sides add up to (n - 2) times 180 degrees.",
        "What the known angles leave of the whole sum is the angle that is missing.")),
    "coin_flip": Game(plans.coin_flip, (
        "The ways that count, divided by all the ways that the coins can fall.",
        "Each flip doubles the number of ways, and comb counts those with a number of heads.")),
    "bitwise_arithmetic": Game(plans.bitwise_arithmetic, ("The calculator reads 0x numbers; hex writes them.",)),
    "base_conversion": Game(plans.base_conversion),
    "count_bits": Game(plans.count_bits),
    "letter_counting": Game(plans.letter_counting),
    "spell_backward": Game(plans.spell_backward),
    "word_sorting": Game(plans.word_sorting),
    "number_sorting": Game(plans.number_sorting),
    "number_filtering": Game(plans.number_filtering),
    "palindrome_generation": Game(plans.palindrome_generation),
    "caesar_cipher": Game(plans.caesar_cipher, settings={"max_rotation": 10, "max_words": 12}),
    "calendar_arithmetic": Game(
        plans.calendar_arithmetic,
        ("A year is a leap year if 4 divides it, but of the full centuries only those that 400 divides.",
         "Weekdays come again after seven days, so only the remainder counts."),
        {"tasks": ["weekday_offset", "weekday_of_date", "weekday_of_date_from_first_date", "is_leap_year"]}),
    "gsm_symbolic": Game(plans.gsm_symbolic, ("I take the story apart and work out one amount after the other.",)),
    "pool_matrix": Game(plans.pool_matrix, ("One block of the matrix after the other, row by row.",),
                        {"max_rows": 6, "max_cols": 6, "min_pool_size": 2}),
    "countdown": Game(plans.checked_solution, (
        "I try whether this combination makes the target.",
        "Each number may be used only once; does this give the target?")),
    "time_intervals": Game(plans.time_intervals, (
        "In seconds, times can be subtracted; then I turn the difference back into hours, minutes and seconds.",),
        {"task_types": ["time_seconds", "time_ms"]}),
    "advanced_geometry": Game(plans.incircle_radius, (
        "The radius of the incircle is twice the area divided by the perimeter.",
        "Sides from the coordinates by Pythagoras, then the area, then the radius."),
        {"task_types": ["incircle_radius"]}),
    "aiw": Game(plans.aiw, ("She counts as one herself, seen from the other.",)),
}  # fmt: skip
UNSEEN_GAMES: dict[str, Game] = {
    "lcm": Game(plans.lcm, (
        "The product divided by the greatest common divisor, which Euclid's algorithm finds.",)),
    "decimal_arithmetic": Game(plans.decimal_arithmetic, _SUM),
    "number_format": Game(plans.number_format),
    "word_sequence_reversal": Game(plans.word_sequence_reversal),
    "polynomial_equations": Game(plans.polynomial_equations, (
        "A quadratic equation: first what stands under the root, then the root, then both solutions.",),
        {"min_degree": 2, "max_degree": 2}),
    "puzzle24": Game(plans.checked_solution, (
        "I try whether this combination makes 24.", "Does this give 24 with every number used once?")),
}  # fmt: skip
