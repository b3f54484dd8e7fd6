"""Small Python functions from a grammar: the name of a function says what its body does."""

NUMBER_PAIRS = [("a", "b"), ("x", "y"), ("m", "n"), ("left", "right"), ("first", "second")]
LIST_NAMES = ["items", "values", "numbers", "xs", "data"]
ITEM_NAMES = ["item", "value", "x", "n"]
TEXT_NAMES = ["text", "word", "s", "name", "line"]
RESULT_NAMES = ["result", "total", "out"]
COMMENTS = ["# A small helper.\n", "# Used below.\n", "# See the tests.\n"]

# name, operator, docstring; the operands come from NUMBER_PAIRS.
BINARY = [
    (["add", "plus"], "+", "Return the sum of {a} and {b}."),
    (["subtract", "minus", "difference"], "-", "Return {a} minus {b}."),
    (["multiply", "times", "product"], "*", "Return the product of {a} and {b}."),
    (["divide"], "/", "Return {a} divided by {b}."),
    (["power"], "**", "Return {a} to the power of {b}."),
    (["modulo", "remainder"], "%", "Return the remainder of {a} and {b}."),
    (["is_equal", "same"], "==", "Return True if {a} and {b} are equal."),
    (["is_greater"], ">", "Return True if {a} is greater than {b}."),
    (["is_less"], "<", "Return True if {a} is less than {b}."),
]
# Bodies with their own slots; a line that starts with four more spaces is one block deeper.
BODIES = [
    ("maximum", "{a}, {b}", "Return the larger of two numbers.", "if {a} > {b}:\n    return {a}\nreturn {b}"),
    ("minimum", "{a}, {b}", "Return the smaller of two numbers.", "if {a} < {b}:\n    return {a}\nreturn {b}"),
    ("swap", "{a}, {b}", "Return the pair in the other order.", "return {b}, {a}"),
    ("square", "{n}", "Return {n} squared.", "return {n} * {n}"),
    ("double", "{n}", "Return twice {n}.", "return {n} * 2"),
    ("increment", "{n}", "Return {n} plus one.", "return {n} + 1"),
    ("is_even", "{n}", "Return True if {n} is even.", "return {n} % 2 == 0"),
    ("is_odd", "{n}", "Return True if {n} is odd.", "return {n} % 2 == 1"),
    ("is_positive", "{n}", "Return True if {n} is positive.", "return {n} > 0"),
    ("absolute", "{n}", "Return {n} without its sign.", "if {n} < 0:\n    return -{n}\nreturn {n}"),
    ("factorial", "n", "Return the factorial of n.",
     "{r} = 1\nfor i in range(1, n + 1):\n    {r} *= i\nreturn {r}"),
    ("factorial", "n", "Return the factorial of n.", "if n <= 1:\n    return 1\nreturn n * factorial(n - 1)"),
    ("fibonacci", "n", "Return the n-th Fibonacci number.",
     "a, b = 0, 1\nfor i in range(n):\n    a, b = b, a + b\nreturn a"),
    ("sum_to", "n", "Return the sum of the numbers up to n.",
     "{r} = 0\nfor i in range(n + 1):\n    {r} += i\nreturn {r}"),
    ("countdown", "n", "Print the numbers from n down to one.", "while n > 0:\n    print(n)\n    n -= 1"),
    ("is_prime", "n", "Return True if n is prime.",
     "if n < 2:\n    return False\nfor i in range(2, n):\n    if n % i == 0:\n        return False\nreturn True"),
    ("gcd", "a, b", "Return the greatest common divisor.", "while b != 0:\n    a, b = b, a % b\nreturn a"),
    ("sum_list", "{xs}", "Return the sum of {xs}.",
     "{r} = 0\nfor {x} in {xs}:\n    {r} += {x}\nreturn {r}"),
    ("average", "{xs}", "Return the average of {xs}.", "return sum({xs}) / len({xs})"),
    ("largest", "{xs}", "Return the largest of {xs}.",
     "best = {xs}[0]\nfor {x} in {xs}:\n    if {x} > best:\n        best = {x}\nreturn best"),
    ("smallest", "{xs}", "Return the smallest of {xs}.",
     "best = {xs}[0]\nfor {x} in {xs}:\n    if {x} < best:\n        best = {x}\nreturn best"),
    ("first", "{xs}", "Return the first of {xs}.", "return {xs}[0]"),
    ("last", "{xs}", "Return the last of {xs}.", "return {xs}[-1]"),
    ("is_empty", "{xs}", "Return True if there are no {xs}.", "return len({xs}) == 0"),
    ("contains", "{xs}, target", "Return True if target is in {xs}.",
     "for {x} in {xs}:\n    if {x} == target:\n        return True\nreturn False"),
    ("count", "{xs}, target", "Count how often target is in {xs}.",
     "{r} = 0\nfor {x} in {xs}:\n    if {x} == target:\n        {r} += 1\nreturn {r}"),
    ("squares", "{xs}", "Return the squares of {xs}.", "return [{x} * {x} for {x} in {xs}]"),
    ("evens", "{xs}", "Return the even numbers of {xs}.", "return [{x} for {x} in {xs} if {x} % 2 == 0]"),
    ("reverse_list", "{xs}", "Return {xs} in the other order.", "return {xs}[::-1]"),
    ("unique", "{xs}", "Return {xs} without repeats.",
     "seen = []\nfor {x} in {xs}:\n    if {x} not in seen:\n        seen.append({x})\nreturn seen"),
    ("print_all", "{xs}", "Print all {xs}.", "for {x} in {xs}:\n    print({x})"),
    ("greet", "name", "Say hello to name.", 'print("Hello, " + name + "!")'),
    ("reverse", "{s}", "Return {s} backwards.", "return {s}[::-1]"),
    ("is_palindrome", "{s}", "Return True if {s} reads the same backwards.", "return {s} == {s}[::-1]"),
    ("shout", "{s}", "Return {s} in capital letters.", 'return {s}.upper() + "!"'),
    ("count_words", "{s}", "Return the number of words in {s}.", "return len({s}.split())"),
    ("count_vowels", "{s}", "Return the number of vowels in {s}.",
     '{r} = 0\nfor c in {s}:\n    if c in "aeiou":\n        {r} += 1\nreturn {r}'),
    ("is_long", "{s}", "Return True if {s} is long.", "return len({s}) > 10"),
]
# What a user may ask for, as the chat domain does, and the function that answers it.
TASKS = [("adds two numbers", "add"), ("multiplies two numbers", "multiply"), ("subtracts two numbers", "subtract"),
         ("returns the larger of two numbers", "maximum"), ("squares a number", "square"),
         ("tells if a number is even", "is_even"), ("tells if a number is prime", "is_prime"),
         ("computes the factorial", "factorial"), ("sums a list", "sum_list"), ("reverses a text", "reverse"),
         ("counts words", "count_words"), ("finds the largest item", "largest"), ("says hello", "greet")]


def _all_shapes():
    """(name, parameters, docstring, body) of every function the grammar knows."""
    shapes = []
    for names, operator, docstring in BINARY:
        for name in names:
            shapes.append((name, "{a}, {b}", docstring, "return {a} " + operator + " {b}"))
            shapes.append((name, "{a}, {b}", docstring, "{r} = {a} " + operator + " {b}\nreturn {r}"))
    return shapes + BODIES


SHAPES = _all_shapes()


def make_function(rng, name=None):
    """One function definition; of the given name if one is asked for."""
    shape = rng.choice(SHAPES if name is None else [s for s in SHAPES if s[0] == name])
    function_name, parameters, docstring, body = shape
    a, b = rng.choice(NUMBER_PAIRS)
    slots = dict(a=a, b=b, n=rng.choice(["n", "x", "number", "value"]), xs=rng.choice(LIST_NAMES),
                 x=rng.choice(ITEM_NAMES), s=rng.choice(TEXT_NAMES), r=rng.choice(RESULT_NAMES))
    lines = [f"def {function_name}({parameters.format(**slots)}):"]
    if rng.random() < 0.4:
        lines.append(f'    """{docstring.format(**slots)}"""')
    lines += ["    " + line for line in body.format(**slots).split("\n")]
    return "\n".join(lines)


def make_module(rng):
    """One to four functions, sometimes with a comment above."""
    functions = []
    for _ in range(rng.randint(1, 4)):
        comment = rng.choice(COMMENTS) if rng.random() < 0.1 else ""
        functions.append(comment + make_function(rng))
    return "\n\n\n".join(functions) + "\n"
