"""The text of the demo model: five domains and a chat domain made of them, all generated, all seeded."""

import json
import random
import zlib

from demo_model.french import PHRASES, make_french
from demo_model.functions import TASKS, make_function, make_module
from demo_model.stories import ANIMALS, BOYS, COLORS, FOODS, GIRLS, SKILLS, make_story

# Share of the documents; the arithmetic and chat documents are short, the stories are long.
DOMAIN_WEIGHTS = {"story": 0.22, "arithmetic": 0.24, "code": 0.16, "french": 0.12, "json": 0.08, "chat": 0.18}
DOMAINS = list(DOMAIN_WEIGHTS)

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"


def is_held_out(a, operator, b):
    """True for the tenth of the sums and differences that training never shows: they tell whether it can calculate."""
    return operator != "*" and zlib.crc32(f"{a} {operator} {b}".encode()) % 10 == 0


def solve(a, operator, b):
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def make_problem(rng, held_out=False):
    """(a, operator, b) with no negative result; operands up to 99, small ones more often, up to 12 for products."""
    while True:
        operator = rng.choices("+-*", weights=[6, 4, 0 if held_out else 1])[0]
        limit = 12 if operator == "*" else rng.choice([10, 20, 50, 99])
        a, b = rng.randint(0, limit), rng.randint(0, limit)
        if operator == "-" and b > a:
            a, b = b, a
        if is_held_out(a, operator, b) == held_out:
            return a, operator, b


def make_arithmetic(rng, held_out=False):
    problems = [make_problem(rng, held_out) for _ in range(rng.randint(4, 14))]
    return "\n".join(f"{a} {operator} {b} = {solve(a, operator, b)}" for a, operator, b in problems) + "\n"


def make_json(rng):
    """A record, or a list of records, of one of three kinds."""
    def person():
        return {"name": rng.choice(GIRLS + BOYS), "age": rng.randint(3, 12), "pet": rng.choice(ANIMALS),
                "likes": rng.sample(FOODS, rng.randint(1, 3))}

    def product():
        price = rng.randint(1, 40)
        amount = rng.randint(1, 9)
        return {"id": rng.randint(100, 999), "color": rng.choice(COLORS), "price": price, "amount": amount,
                "in_stock": amount > 2}

    def point():
        x, y = rng.randint(0, 9), rng.randint(0, 9)
        return {"x": x, "y": y, "tags": rng.sample(COLORS, 2), "visible": rng.random() < 0.5, "parent": None}

    make = rng.choice([person, product, point])
    value = make() if rng.random() < 0.6 else [make() for _ in range(rng.randint(2, 3))]
    return json.dumps(value, indent=2 if rng.random() < 0.4 else None) + "\n"


SHORT_TURNS = ["sum", "phrase", "hello", "skill"]
LAST_TURNS = ["sum", "sum", "sum", "phrase", "story", "story", "code", "hello"]
GREETING = ("Hello! I am a small demo model. "
            "I can tell a story, add two numbers, write a function or say something in French.")


def _chat_turn(rng, short):
    """(question, answer); a short one for a conversation that goes on."""
    kind = rng.choice(SHORT_TURNS if short else LAST_TURNS)
    if kind == "sum":
        a, operator, b = make_problem(rng)
        word = {"+": "plus", "-": "minus", "*": "times"}[operator]
        question = rng.choice([f"What is {a} {word} {b}?", f"{a} {operator} {b} =", f"How much is {a} {operator} {b}?"])
        return question, f"{a} {operator} {b} = {solve(a, operator, b)}"
    if kind == "phrase":
        english, french = rng.choice(PHRASES)
        return rng.choice([f'Say "{english}" in French.', f'How do you say "{english}" in French?']), french
    if kind == "story":
        animal = rng.choice(ANIMALS)
        article = "an" if animal[0] in "aeiou" else "a"
        request = rng.choice(["Tell me a story about", "Write a story about"])
        return f"{request} {article} {animal}.", make_story(rng, animal)
    if kind == "code":
        task, name = rng.choice(TASKS)
        return f"Write a function that {task}.", make_function(rng, name)
    if kind == "skill":
        return f"Can you {rng.choice(SKILLS)}?", "No, I am only a small model. I can tell a story or add two numbers."
    return rng.choice(["Hello!", "Hi!", "Hello, who are you?", "Who are you?"]), GREETING


def make_chat(rng):
    """One or two questions and answers in the ChatML notation of the chat template."""
    turns = [_chat_turn(rng, short=True)] if rng.random() < 0.25 else []
    turns.append(_chat_turn(rng, short=False))
    return "\n".join(f"{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n{answer}{TURN_END}"
                     for question, answer in turns)


MAKERS = {"story": make_story, "arithmetic": make_arithmetic, "code": make_module, "french": make_french,
          "json": make_json, "chat": make_chat}


class Corpus:
    """An endless, seeded stream of documents. Two corpora with different seeds share templates, not texts."""

    def __init__(self, seed):
        self._rng = random.Random(seed)

    def document(self, domain):
        """One document of the domain, without the end-of-text token."""
        return MAKERS[domain](self._rng)

    def mixed(self):
        """(domain, document) of a domain drawn by DOMAIN_WEIGHTS."""
        domain = self._rng.choices(DOMAINS, weights=list(DOMAIN_WEIGHTS.values()))[0]
        return domain, self.document(domain)
