#!/usr/bin/env python3
"""Writes the golden data of the tokenizer tests with the Hugging Face `tokenizers` library (0.23).

  make_tokenizers.py              trains the small tokenizers under tests/golden/tokenizers/ and records what they do
  make_tokenizers.py --cases DIR  records what the tokenizer in DIR (tokenizer.json) does, in DIR/cases.jsonl

tests/golden/tokenizers/README.md describes the files. Training gives the same files every time, except for word_prefix
and word_suffix: with these options the trainer breaks ties by chance, and every outcome serves as well.
"""

import json
import pathlib
import random
import sys

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

import tokenizer_texts

OUT = pathlib.Path(__file__).resolve().parent / "tokenizers"

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def isolated(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def bos_template(token, token_id):
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, token_id)]
    )


def train(pre_tokenizer, normalizer=None, vocab_size=900, special=(), initial_alphabet=None, **model_options):
    tokenizer = Tokenizer(models.BPE(**model_options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if initial_alphabet is None else initial_alphabet
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=alphabet,
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts.TRAINING.splitlines(keepends=True) * 3, trainer)
    return tokenizer


def trained_byte_level(pre_tokenizer, normalizer=None, **model_options):
    """Like the published files: the special tokens come after the vocabulary, not in it."""
    tokenizer = train(pre_tokenizer, normalizer)
    document = json.loads(tokenizer.to_str())
    document["model"] |= model_options
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def gpt2():
    tokenizer = trained_byte_level(byte_level(use_regex=True), normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    # Runs of spaces are plain added tokens in this family.
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(8, 1, -1)])
    tokenizer.add_tokens(
        [AddedToken("|||EMAIL_ADDRESS|||", normalized=False), AddedToken("re\u0301sume\u0301", normalized=True)]
    )
    return tokenizer


def qwen2():
    tokenizer = trained_byte_level(pre_tokenizers.Sequence([isolated(QWEN2), byte_level()]), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(
        [
            AddedToken("<tool_call>", normalized=False),
            AddedToken("</tool_call>", normalized=False),
            AddedToken("<think>", normalized=False),
            AddedToken("</think>", normalized=False),
        ]
    )
    return tokenizer


def llama3():
    tokenizer = trained_byte_level(pre_tokenizers.Sequence([isolated(LLAMA3), byte_level()]), ignore_merges=True)
    tokenizer.add_special_tokens(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    )
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(), bos_template(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def o200k():
    tokenizer = trained_byte_level(pre_tokenizers.Sequence([isolated(O200K), byte_level()]), ignore_merges=True)
    tokenizer.add_special_tokens(
        ["<|startoftext|>", "<|endoftext|>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>"]
    )
    return tokenizer


def deepseek3():
    splits = [isolated(r"\p{N}{1,3}"), isolated("[一-龥\u3040-ゟ゠-ヿ]+"), isolated(DEEPSEEK3), byte_level()]
    tokenizer = trained_byte_level(pre_tokenizers.Sequence(splits))
    tokenizer.add_special_tokens(
        [
            AddedToken("<｜begin▁of▁sentence｜>", normalized=True, special=True),
            AddedToken("<｜end▁of▁sentence｜>", normalized=True, special=True),
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken("<｜User｜>", normalized=True),
            AddedToken("<｜Assistant｜>", normalized=True),
            AddedToken("<|lstrip|>", lstrip=True, normalized=False),
            AddedToken("<|rstrip|>", rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("<|both|>", lstrip=True, rstrip=True),
        ]
    )
    tokenizer.post_processor = bos_template(
        "<｜begin▁of▁sentence｜>", tokenizer.token_to_id("<｜begin▁of▁sentence｜>")
    )
    return tokenizer


def deepseek2():
    letters = (
        "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁ"
        "Ҋ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-ἝⰀ-ⱻⱾ-ⳤꙀ-ꙭꚀ-ꚛ]"
    )
    splits = [
        isolated("[\r\n]"),
        isolated(rf"\s?{letters}+"),
        isolated("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
        isolated(r"\s+$"),
        isolated("[一-龥\u0800-一가-\ud7ff]+"),
        pre_tokenizers.Digits(individual_digits=True),
        byte_level(),
    ]
    tokenizer = trained_byte_level(pre_tokenizers.Sequence(splits))
    tokenizer.add_special_tokens(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    tokenizer.add_tokens(["<｜fim▁hole｜>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def bailing():
    tokenizer = trained_byte_level(pre_tokenizers.Sequence([isolated(BAILING), byte_level()]))
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>", "[gMASK]"])
    return tokenizer


SPACE_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def with_byte_fallback(normalizer, pre_tokenizer, decoder, **options):
    """Vocabulary as SentencePiece lays it out: <unk> <s> </s>, the 256 byte tokens, pieces."""
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = sorted({c for c in tokenizer_texts.TRAINING if ord(c) < 0x250} - set("\n\t"))
    tokenizer = train(pre_tokenizer, normalizer, vocab_size=1000, special=special, initial_alphabet=alphabet)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    # A trained vocabulary holds every character it saw; drop the rare ones, so that the fallback has work to do.
    model = document["model"]
    rare = {c for c in model["vocab"] if len(c) == 1 and ord(c) >= 0x250 and c != "▁"}
    merges = [pair for pair in model["merges"] if not rare & set("".join(pair))]
    kept = [token for token in model["vocab"] if token.startswith("<0x") or token in special or not rare & set(token)]
    model |= {
        "vocab": {token: i for i, token in enumerate(kept)},
        "merges": merges,
        "byte_fallback": True,
        "fuse_unk": True,
        "unk_token": "<unk>",
    } | options
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoder
    tokenizer.post_processor = bos_template("<s>", 1)
    return tokenizer


def mixtral_legacy():
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = with_byte_fallback(normalizer, None, decoders.Sequence(SPACE_DECODER + [decoders.Strip(" ", 1, 0)]))
    document = json.loads(tokenizer.to_str())
    # The older spelling of merges.
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(document)), document


def mixtral_metaspace():
    tokenizer = with_byte_fallback(
        None,
        pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False),
        decoders.Sequence(SPACE_DECODER + [decoders.Strip(" ", 1, 0)]),
    )
    tokenizer.add_special_tokens(["[INST]", "[/INST]"])
    tokenizer.add_tokens([AddedToken("[TOOL]", normalized=False, lstrip=True, rstrip=True)])
    return tokenizer


def metaspace_unk():
    """No byte fallback: unknown characters, a Metaspace that splits, and its decoder."""
    tokenizer = with_byte_fallback(
        normalizers.NFKC(),
        pre_tokenizers.Metaspace("▁", prepend_scheme="always"),
        decoders.Metaspace(),
        byte_fallback=False,
        fuse_unk=False,
    )
    tokenizer.add_tokens(
        [AddedToken("Ｔｏｋｅｎ", normalized=True), AddedToken("cafe\u0301", normalized=True, single_word=True)]
    )
    return tokenizer


def latin_lines():
    """A small alphabet, so that there are unknown characters."""
    return [line for line in tokenizer_texts.TRAINING.splitlines() if all(ord(c) < 0x250 for c in line)]


def word_suffix():
    """The oldest layout: lower case, split at white space, end_of_word_suffix, no decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>"],
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"),
    )
    tokenizer.train_from_iterator(latin_lines(), trainer)
    tokenizer.add_tokens([AddedToken("TheToken", normalized=True)])
    return tokenizer


def word_prefix():
    """continuing_subword_prefix, and a model whose unknown characters vanish."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, continuing_subword_prefix="##", show_progress=False,
    )
    tokenizer.train_from_iterator(latin_lines(), trainer)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex("^##"), ""), decoders.Fuse()])
    return tokenizer


LAYOUTS = [
    gpt2,
    qwen2,
    llama3,
    o200k,
    deepseek3,
    deepseek2,
    bailing,
    mixtral_legacy,
    mixtral_metaspace,
    metaspace_unk,
    word_suffix,
    word_prefix,
]


def dump(row):
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def text_case(tokenizer, text):
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    framed = tokenizer.encode(text, add_special_tokens=True).ids
    tokenizer.encode_special_tokens = False
    parsed = tokenizer.encode(text, add_special_tokens=False).ids
    row = {"text": text, "ids": ids}
    if parsed != ids:
        row["parsed"] = parsed
    if framed != ids:
        row["framed"] = framed
    return row | decodes(tokenizer, parsed, text)


def decodes(tokenizer, ids, default=None):
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    decoded_all = tokenizer.decode(ids, skip_special_tokens=False)
    row = {} if decoded == default else {"decoded": decoded}
    return row if decoded_all == decoded else row | {"decoded_all": decoded_all}


def random_ids_cases(tokenizer, seed, count):
    rng = random.Random(seed)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    special = [i for i, token in tokenizer.get_added_tokens_decoder().items()] or [0]
    short = [
        i
        for i in range(size)
        if len(tokenizer.id_to_token(i) or "xx") <= 1 or (tokenizer.id_to_token(i) or "").startswith("<0x")
    ] or [0]
    for _ in range(count):
        ids = [
            rng.choice(
                [
                    rng.randrange(size),
                    rng.choice(short),
                    rng.choice(short),
                    rng.choice(special),
                    rng.randrange(size + 9),
                ]
            )
            for _ in range(rng.choice([1, 2, 5, 12, 30]))
        ]
        yield {"ids": ids} | decodes(tokenizer, ids)


def write_cases(folder, tokenizer, seed, num_random):
    added = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    rows = [text_case(tokenizer, text) for text in tokenizer_texts.all_texts(added, seed, num_random)]
    rows += random_ids_cases(tokenizer, seed, num_random // 2)
    (folder / "cases.jsonl").write_text("".join(dump(row) + "\n" for row in rows), encoding="utf-8")


def main():
    if sys.argv[1:2] == ["--cases"]:
        folder = pathlib.Path(sys.argv[2])
        write_cases(folder, Tokenizer.from_file(str(folder / "tokenizer.json")), seed=1, num_random=2000)
        return
    for seed, layout in enumerate(LAYOUTS):
        tokenizer = layout()
        document = None
        if isinstance(tokenizer, tuple):
            tokenizer, document = tokenizer
        document = document or json.loads(tokenizer.to_str())
        folder = OUT / layout.__name__
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(dump(document) + "\n", encoding="utf-8")
        write_cases(folder, Tokenizer.from_file(str(folder / "tokenizer.json")), seed, num_random=240)


if __name__ == "__main__":
    main()
