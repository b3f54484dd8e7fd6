#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/components.jsonl: what single components of the Hugging Face `tokenizers` library
(0.23) do.

One component a line, with its cases: {"normalizer": ..., "cases": [[text, normalized], ...]},
{"pre_tokenizer": ..., "cases": [[text, pieces], ...]}, {"decoder": ..., "cases": [[tokens, text], ...]}, or
{"regex": ..., "cases": [[text, replaced, spans], ...]}.
"""

import json
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import make_tokenizers
import tokenizer_texts

BLOCK = "\u2588"  # stands for a match
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]

NORMALIZERS = [
    normalizers.NFC(),
    normalizers.NFD(),
    normalizers.NFKC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
    normalizers.Prepend("▁"),
    normalizers.Prepend("ab "),
    normalizers.Strip(left=True, right=True),
    normalizers.Strip(left=True, right=False),
    normalizers.Strip(left=False, right=True),
    normalizers.Replace(" ", "▁"),
    normalizers.Replace("a", ""),
    normalizers.Replace("", "-"),
    normalizers.Replace(".", "!"),
    normalizers.Replace(Regex(r"\s+"), " "),
    normalizers.Replace(Regex(r"^\s+"), ""),
    normalizers.Replace(Regex(r"\d"), "<n>"),
    normalizers.Replace(Regex(r"(?<=a)b|$"), "#"),
    normalizers.Replace(Regex(r"\w*"), "W"),
    normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\p{Mn}"), ""), normalizers.Strip()]
    ),
]

PRE_TOKENIZERS = (
    [
        pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
        for prefix in (False, True)
        for regex in (False, True)
    ]
    + [
        pre_tokenizers.Split(pattern, behavior, invert)
        for behavior in BEHAVIORS
        for invert in (False, True)
        for pattern in ("-", " ", "", Regex(r"\d+"), Regex(r"\s"), Regex(r"\w+|[^\w\s]"), Regex(r"a*"))
    ]
    + [pre_tokenizers.Punctuation(behavior) for behavior in BEHAVIORS]
    + [
        pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
        for scheme in ("always", "first", "never")
        for split in (False, True)
    ]
    + [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Whitespace(),
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="first")]),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split("-", "merged_with_next"),
                pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
            ]
        ),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation(),
                pre_tokenizers.Digits(True),
                pre_tokenizers.ByteLevel(True, use_regex=True),
            ]
        ),
        pre_tokenizers.Sequence([]),
    ]
)

DECODERS = [
    decoders.ByteLevel(),
    decoders.ByteFallback(),
    decoders.Fuse(),
    decoders.Metaspace(),
    decoders.Metaspace(prepend_scheme="never"),
    decoders.Replace("▁", " "),
    decoders.Replace(Regex(r"\s+"), "_"),
    decoders.Replace("", "-"),
    decoders.Strip(" ", 1, 0),
    decoders.Strip("▁", 2, 0),
    decoders.Sequence([]),
    decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    decoders.Sequence([decoders.ByteFallback(), decoders.Replace("\ufffd", "?")]),
    decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    decoders.Sequence([decoders.ByteFallback(), decoders.Strip(" ", 3, 0)]),
    decoders.Sequence([decoders.Fuse(), decoders.Replace("a▁", "[]")]),
    decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]),
    decoders.Sequence([decoders.ByteLevel(), decoders.Replace("l", "L")]),
    decoders.Sequence([decoders.Fuse(), decoders.ByteFallback()]),
]

REGEXES = [
    r"'s|'t",
    r"(?i)abc|x",
    r"(?i:'s|'t|'re)",
    r"\p{L}+",
    r"\P{L}+",
    r"[^\s\p{L}]+",
    r"\s+(?!\S)",
    r"\s+$",
    r"^\s*",
    r"$",
    r"^.",
    r".+",
    r"\S+",
    r"\w+",
    r"\W+",
    r"\d+",
    r"\D+",
    r"\h+",
    r"\H+",
    r"\v",
    r"[\h]+",
    r"[\w-]+",
    r"[-\w]+",
    r"[\s\d]+",
    r"[\S]+",
    r"[^\S]+",
    r"\p{Han}+",
    r"[\p{Han}\p{Hiragana}]+",
    r"\p{Lu}\p{Ll}*",
    r"[\p{M}\p{Nd}]+",
    r"\x41",
    r"\x{1F642}",
    r"\u4e2d",
    r"[\u4e00-\u9fa5]+",
    r"\n|\r|\t",
    r"[\n\r]+",
    r"a{2,3}",
    r"a{2,}",
    r"a{2}",
    r"[a-c]+?",
    r"(?>a+)b",
    r"(a|b)+",
    r"a++b",
    r"a?+b",
    r"(?=a)a",
    r"(?<!a)b",
    r"(?<=a)b",
    r"x{",
    r"{",
    r"\.",
    r"\[",
    r"[\]\[]",
    r"[a\-z]+",
    r"[.&|~]+",
    r"",
    r"a*",
    r"(?:)",
    r"\A\w",
    r"\w\z",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}{1,3}",
    r"🙂+",
    r"[🙂é]+",
    r"[一-龥]+",
    r"[^\x00-\x7F]+",
    r"\p{Sc}|\p{Sm}|\p{Sk}",
    r"\p{Zs}+",
    r"\p{Pd}|\p{Po}",
    r"\p{Cyrillic}+|\p{Greek}+|\p{Arabic}+",
    make_tokenizers.QWEN2,
    make_tokenizers.LLAMA3,
    make_tokenizers.O200K,
    make_tokenizers.DEEPSEEK3,
    make_tokenizers.BAILING,
]

TEXTS = [
    "the-final--countdown",
    "Hello, World! It's 10:30 -- don't panic.",
    "  two  spaces ",
    "a",
    "-",
    "--a",
    " ",
    "aaa bbb aaab",
    "\n\n x\ty \r\n",
    "price: $3.50 (approx.)",
    "x1 y22 z333 ٣٤ Ⅷ½",
    "ÀÉÎ àéî Ω ω Ж ж İIıi ẞß ſs",
    "cafe\u0301 \u1e9b\u0323 \u212b ﬁ",
    "中文，日本語。カナ 한국어",
    "a\u180eb\u0085c\u2028d\u3000e\u200bf",
    "🙂👍🏽 👩‍👩‍👧 \ufe0f",
    "▁a▁ b ▁",
    "snake_case CamelCase ABC abc",
    "f(x)=[1]{2}&&|~.;a-z",
    "'S 'T 're abcABC xX",
    "line\n  line2\n\nline3  ",
    "9" * 10,
    "\u0301\u0327a\u0301\u0327",
    "\u1100\u1161\u11a8가\u11a8",
    "tab\tbed\x0bcafe 0xFF",
    "\U00011938\U00011935\U00011930 ꟲ ㋿ \U0001e030\U00016d40\ua7cb \U000105d2\u0307",
]

TOKENS = [
    "a",
    "▁",
    "▁a",
    "▁▁b",
    " ",
    "  x ",
    "",
    "Hello",
    "Ġworld",
    "Ġ",
    "Ċ",
    "Ã",
    "©",
    "Ã©",
    "ð",
    "Ł",
    "ĺ",
    "Ĥ",
    "中",
    "é",
    "<0xC3>",
    "<0xA9>",
    "<0xE4>",
    "<0xB8>",
    "<0xAD>",
    "<0x41>",
    "<0x20>",
    "<0x0a>",
    "<0x+A>",
    "<0xGG>",
    "<0x4>",
    "<0x041>",
    "<0xé>",
    "</s>",
    "\ufffd",
    "l",
    "-",
    " a",
    "a ",
    "\n",
]


def regex_case(regex, text):
    """The text with each match replaced by a block, and the byte spans of the matches that are not empty."""
    replaced = normalizers.Replace(Regex(regex), BLOCK).normalize_str(text)
    matches = pre_tokenizers.Split(Regex(regex), "removed", invert=True).pre_tokenize_str(text)
    return [text, replaced, [[len(text[:index].encode()) for index in span] for _, span in matches]]


def component(owner, stage):
    tokenizer = Tokenizer(models.BPE())
    setattr(tokenizer, stage, owner)
    return json.loads(tokenizer.to_str())[stage]


def random_texts(rng, count):
    return [text for text in tokenizer_texts.random_texts(rng, 3 * count) if BLOCK not in text][:count]


def main():
    rng = random.Random(7)
    rows = []
    for normalizer in NORMALIZERS:
        cases = [[text, normalizer.normalize_str(text)] for text in TEXTS + random_texts(rng, 40)]
        rows.append({"normalizer": component(normalizer, "normalizer"), "cases": cases})
    for pre_tokenizer in PRE_TOKENIZERS:
        cases = [
            [text, [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]]
            for text in TEXTS[:18] + random_texts(rng, 12)
        ]
        rows.append({"pre_tokenizer": component(pre_tokenizer, "pre_tokenizer"), "cases": cases})
    for decoder in DECODERS:
        tokens = [[rng.choice(TOKENS) for _ in range(rng.choice([0, 1, 2, 4, 8, 16]))] for _ in range(60)]
        rows.append(
            {"decoder": component(decoder, "decoder"), "cases": [[case, decoder.decode(case)] for case in tokens]}
        )
    for regex in REGEXES:
        rows.append({"regex": regex, "cases": [regex_case(regex, text) for text in TEXTS + random_texts(rng, 10)]})
    path = make_tokenizers.OUT / "components.jsonl"
    path.write_text("".join(make_tokenizers.dump(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
