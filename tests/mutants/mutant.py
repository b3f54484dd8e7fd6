"""A seeded bug."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    program: str  # the test program
    tests: str  # a GoogleTest filter; every test that it names is expected to pass without the mutant
