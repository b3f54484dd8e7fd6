#!/usr/bin/env python3
"""Writes engine/text/unicode_additions.inc and tests/golden/tokenizers/unicode_classes.json.

PCRE2 10.42 knows Unicode 14 and utf8proc 2.8 knows Unicode 15. Inside the Hugging Face `tokenizers` library the regex
engine knows Unicode 16, the normal forms Unicode 9, lower case Unicode 17 and the Punctuation component Unicode 8. This
script asks that library, code point by code point, and writes down (a) where it differs from Unicode 14, as tables for
the C++ side, and (b) the whole classes as ranges, as test data.

Needs: tokenizers 0.23, and a Python whose unicodedata is version 14 (3.11).
"""

import json
import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

REPO = pathlib.Path(__file__).resolve().parents[2]
CATEGORIES = [
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Mn",
    "Mc",
    "Me",
    "Nd",
    "Nl",
    "No",
    "Pc",
    "Pd",
    "Ps",
    "Pe",
    "Pi",
    "Pf",
    "Po",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Zs",
    "Zl",
    "Zp",
]
SCRIPTS = [
    "Arabic",
    "Cyrillic",
    "Devanagari",
    "Greek",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Katakana",
    "Latin",
    "Thai",
]
CLASSES = [r"\s", r"\w", r"\d", r"\p{L}", r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\p{Z}"]


def code_points():
    for base in range(0, 0x110000, 0x400):
        block = [c for c in range(base, base + 0x400) if not 0xD800 <= c < 0xE000]
        if block:
            yield block


def removed_by(pre_tokenizer):
    """The code points that a Split or filter with behavior "removed" takes away."""
    members = []
    for block in code_points():
        left = set()
        for piece, _ in pre_tokenizer.pre_tokenize_str("".join(map(chr, block))):
            left.update(map(ord, piece))
        members += [c for c in block if c not in left]
    return members


def class_members(pattern):
    return removed_by(pre_tokenizers.Split(Regex(pattern), "removed"))


def digit_members():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return [c for block in code_points() for c in block if len(digits.pre_tokenize_str("a" + chr(c) + "b")) == 3]


def word_members():
    """The \\w of the Whitespace pre-tokenizer, which runs another regex engine than Split."""
    whitespace = pre_tokenizers.Whitespace()
    return [c for block in code_points() for c in block if len(whitespace.pre_tokenize_str("a" + chr(c) + "b")) == 1]


def ranges(members):
    result = []
    for c in sorted(members):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def inert_members():
    """The code points that the library's normal forms leave alone although they decompose or combine in Unicode 14."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    members = {0x11930}  # composes with U+11935 in Unicode 13: neither decomposes nor combines, so the probes miss it
    for c in (c for block in code_points() for c in block):
        # U+0345 and U+0334 have the highest and the lowest combining class: whatever combines changes places with one.
        probes = (chr(c), "a\u0345" + chr(c), "a" + chr(c) + "\u0334")
        if any(nfkd.normalize_str(text) != unicodedata.normalize("NFKD", text) for text in probes):
            members.add(c)
        if nfd.normalize_str(chr(c)) != unicodedata.normalize("NFD", chr(c)):
            members.add(c)
    return members


def lowercase_additions():
    """Rows (first, last, first lower case) of the pairs that Unicode 14 does not have."""
    lowercase = normalizers.Lowercase()
    rows = []
    for c in (c for block in code_points() for c in block):
        lower = lowercase.normalize_str(chr(c))
        if lower != chr(c).lower():
            if rows and rows[-1][1] == c - 1 and rows[-1][2] + c - rows[-1][0] == ord(lower):
                rows[-1][1] = c
            else:
                rows.append([c, c, ord(lower)])
    return rows


def is_new(c):
    return unicodedata.category(chr(c)) == "Cn"


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    known_punctuation = {c for block in code_points() for c in block if unicodedata.category(chr(c)).startswith("P")}
    punctuation = set(removed_by(pre_tokenizers.Punctuation("removed")))
    digits = set(digit_members())
    known_numbers = {c for block in code_points() for c in block if unicodedata.category(chr(c)).startswith("N")}

    lines = ["// Written by tests/golden/make_unicode_additions.py. Do not edit.", "// clang-format off"]

    def table(name, rows):
        lines.append(f"constexpr NamedRange {name}[] = {{")
        for label, (first, last) in rows:
            lines.append(f'    {{"{label}", 0x{first:X}, 0x{last:X}}},')
        lines.append("};")

    table(
        "kCategoryAdditions",
        [(name, r) for name in CATEGORIES for r in ranges(filter(is_new, class_members(rf"\p{{{name}}}")))],
    )
    table(
        "kScriptAdditions",
        [(name, r) for name in SCRIPTS for r in ranges(filter(is_new, class_members(rf"\p{{{name}}}")))],
    )
    table("kDigitsAdditions", [("", r) for r in ranges(digits - known_numbers)])
    table("kPunctuationExclusions", [("", r) for r in ranges(known_punctuation - punctuation)])
    table(
        "kPunctuationAdditions", [("", r) for r in ranges({c for c in punctuation - known_punctuation if c > 0x7F})]
    )
    new = {c for block in code_points() for c in block if is_new(c)} & set(
        class_members(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]")
    )
    table("kNormalizationInert", [("", r) for r in ranges(inert_members() | new)])
    lines.append("constexpr LowercaseRange kLowercaseAdditions[] = {")
    lines += [f"    {{0x{first:X}, 0x{last:X}, 0x{lower:X}}}," for first, last, lower in lowercase_additions()]
    lines.append("};")
    lines.append("// clang-format on")
    (REPO / "engine/text/unicode_additions.inc").write_text("\n".join(lines) + "\n")

    golden = {name: ranges(class_members(name)) for name in CLASSES}
    golden |= {rf"\p{{{name}}}": ranges(class_members(rf"\p{{{name}}}")) for name in CATEGORIES + SCRIPTS}
    golden |= {"Digits": ranges(digits), "Punctuation": ranges(punctuation), "Whitespace": ranges(word_members())}
    golden |= {"WhitespaceSplit": ranges(removed_by(pre_tokenizers.WhitespaceSplit()))}
    rows = [f"{json.dumps(name)}:{json.dumps(rows, separators=(',', ':'))}" for name, rows in golden.items()]
    (REPO / "tests/golden/tokenizers/unicode_classes.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
