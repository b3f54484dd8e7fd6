"""Texts for the tokenizer golden data: what to train on, and what to encode. Everything here is written for the purpose."""

import random

TRAINING = """
A small guild of weavers kept its looms beside the river, and each of them knew one pattern better than all the others.
When a merchant asked for cloth, the eldest looked at the thread, thought for a moment, and called two of them: "You, and you."
Nobody else stood up. It's faster that way, she'd say; they'll rest, and we've got no time to waste. Don't you think so?
The price was 12 coins in 1998, 450 coins in 2007, and 123456789 by the end. She didn't mind: I'm old, I've seen worse, he'd know.
def route(tokens, experts, k=2):
    scores = [softmax(gate @ token) for token in tokens]
    return [sorted(range(len(s)), key=lambda e: -s[e])[:k] for s in scores]

for (int i = 0; i < num_tokens; ++i) {
\tout[i] += weight[i] * expert(ids[i], x[i]);  // accumulate
}
{"name": "cadre", "layers": [1, 2, 3], "ok": true, "ratio": 0.125}
SELECT id, name FROM guild WHERE price >= 100 AND town != 'Ulm' ORDER BY name;
https://example.org/a/b?c=d&e=f#g  user@example.org  /usr/share/dict/words  C:\\Temp\\x.txt
Der Fluß fließt langsam, und die Weberinnen hören ihm zu: „Schön“, sagt die Älteste. Größe, Maße, Übermut, Äpfel.
Le tissu coûtait déjà très cher à l'époque; l'été, on travaillait dehors, près de la forêt. Où ça? Là-bas, peut-être.
La niña tejía un paño más fino que los demás; ¿quién lo compró? ¡El señor de la montaña!
Ткачихи сидели у реки, и каждая знала свой узор лучше других. Сколько это стоит? Сто двадцать монет.
Οι υφάντρες κάθονταν δίπλα στο ποτάμι και η καθεμία ήξερε το δικό της σχέδιο.
织工们坐在河边，每个人都最熟悉一种花纹。商人来买布的时候，最年长的人只叫两个人。价格是一百二十三个铜钱。
川のそばで織り手たちは働いていました。それぞれが得意な模様を持っています。カタカナとひらがなと漢字。
직조공들은 강가에 앉아 있었고 각자 자기 무늬를 가장 잘 알았다. 값은 동전 백이십 닢이었다.
كانت الناسجات يجلسن قرب النهر وكل واحدة تعرف نقشها. हर बुनकर को अपना नमूना सबसे अच्छा आता था।
ช่างทอผ้านั่งอยู่ริมแม่น้ำ  האורגות ישבו ליד הנהר
🙂 🎉🎉 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ❤️ ✓ → ∑ ≠ €100 £5 ½ ² Ⅷ ①
"""

# Every White_Space character, and their lookalikes that are not.
SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009" \
         "\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"

FIXED = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r", "\r\n", "\r\r\n\n", "\t", " \n", "\n ", " \n ", "  \n\n  ", "a", " a", "a ", "  a  ",
    "Hello, world!", "hello world", "HELLO WORLD", "HeLLo WoRLD", "The quick brown fox jumps over the lazy dog.",
    "it's IT'S it'S don't DON'T we've WE'VE they'll THEY'LL I'm I'M he'd HE'D you're YOU'RE", "'s 't 're 've 'm 'll 'd", "'S 'T", "'\u017f",
    "it\u2019s", "o'clock rock'n'roll '90s ''''", "\u017ft \u212aelvin K k ſ S s", "naïve café cafe\u0301 CAFÉ ÅNGSTRÖM A\u030angstrom \u212b",
    "0", "1", "12", "123", "1234", "12345", "123456", "1234567890", "3.14159", "1,000,000", "1e-9", "0x1F", "-42", "٣٤٥", "१२३", "Ⅷ ² ½ ① ㊿",
    "9" * 50, "0" * 199 + "1", "a1b2c3", "1a2b3c", "x=1;y=22;z=333;w=4444", "v1.2.3-rc4", "2024-02-29T23:59:60Z",
    "a\tb", "a\t\tb", "a\n\nb", "a\r\nb", "a\rb", "line one\nline two\r\nline three\rline four", "trailing newline\n", "trailing spaces   ",
    "   leading spaces", "\n\n\nleading newlines", "a  b   c    d     e", "tab\tseparated\tvalues\n1\t2\t3\n", "x \n y \n\n z",
    "def f(x):\n    if x > 0:\n        return x ** 2\n    return None\n", "#include <vector>\nint main() { return 0; }\n",
    "<html><body class=\"x\">&nbsp;</body></html>", "$a->b['c'] ?? @d; // e", "if(a&&b||!c){d|=e^f;}", "\\n \\t \\\\ \\\"", "a/b\\c", "//", "/**/", "...", "…", "---", "—–-",
    "!!!???", "()[]{}<>", "((((((", "@#$%^&*", "a!b?c.d,e;f:g", "~`|", "\"quoted\" 'single' “curly” ‘curly’ «guillemets»", "#hashtag @mention", "_under_score_ __init__",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case XMLHttpRequest iOS macOS eBPF", "AAAA", "AAAAaaaa", "aAaAaA", "ABCdef ABCDef aBCDeF", "ǅ ǆ Ǆ ᾈ ŉ ﬁ ﬀ ß ẞ İ ı",
    "e\u0301", "\u0301", "\u0301\u0302a", "a\u0327\u0301", "a\u0301\u0327", "\u1e9b\u0323", "q\u0307\u0323", "ᾳ\u0345\u0301", "\u0344", "नमस्ते", "க்ஷ", "ก็", "ไทย", "ภาษาไทยไม่มีช่องว่าง",
    "\u1100\u1161\u11a8", "각", "한국어 텍스트", "\u1112\u1161\u11ab\u1100\u1173\u11af", "가\u11a8", "\uac00\u11a7", "ㄱㄴㄷ", "中文", "中文字符和English混合123", "你好，世界！", "㐀𠀀𪜀\uf900\ufa0e",
    "ひらがな", "カタカナ", "ｶﾀｶﾅ", "か\u3099", "が", "日本語とEnglishと123", "々〆ヶ", "①②③㈱㌔", "ＡＢＣ１２３", "　全角　スペース　", "、。「」『』",
    "🙂", "🙂🙂", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "❤", "1️⃣", "a🙂b", " 🙂 ", "🙂 text 🎉", "\U0001f1e6", "👩\u200d", "\ufe0f", "\u200d",
    "Привет, мир!", "ПРИВЕТ", "ёЁ й и\u0306", "Γειά σου Κόσμε", "ΟΔΟΣ ΣΑΣ", "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "مُحَمَّد", "سلام\u200cها", "Ångström", "ǰ J\u030c", "\u03d2\u0301",
    "\x00", "\x00\x01\x02", "a\x00b", "\x07\x08\x1b[31m", "\x7f", "\x80\x81", "\xad", "soft\xadhyphen", "\u200b", "zero\u200bwidth", "\ufeff", "\ufeffBOM", "\u180e", "a\u180eb", " \u180e ",
    "\u0085", "a\u0085b", "\u2028", "a\u2028b\u2029c", "\u3000\u3000", "\xa0", "a\xa0b", "\xa0\xa0 a", " \xa0", "\u1680x", "\u200ax\u200b",
    "\ufffd", "\ufffe\uffff", "\U0010ffff", "\U0001fffe", "\ue000", "\U000f0000", "\u0378", "\U0001d400\U0001d7d8", "\U00010400\U00010428", "𝕳𝖊𝖑𝖑𝖔", "𝟘𝟙𝟚", "\U0001f9ff\U0001fae8", "\U00031350", "\U0002ebf0", "\U0001e030",
    "\u1c89 \u1c8a", "\ua7cb", "\U00016d40", "\U00010d4a\U00010d69", "\u0cf3", "\u1ace", "\U00011f04\U00011f50", "㋿", "\U00011938 \U00011935\U00011930", "ꟲꭩ", "\U0001e08f\u0301a", "\U00010eaba\u0301",
    "Zalgo: Z\u0351\u036b\u0343\u036a\u0302\u0317a\u0330\u0321l\u0358\u0337g\u0334o\u035d", "\u0e33\u0eb3", "\u0958\u09dc", "\ufb1d\ufb4e", "\ufdfa", "\u3392\u33ff", "\u2126\u212a\u212b", "⅓⅛", "x²+y²=z²", "H₂O", "10⁻³", "µ μ", "℃ ℉", "™®©", "₿ ₹ ₩",
    "▁", "▁a", "a▁b", " ▁ ", "▁▁", "a ▁", "Ġ", "ĠHello", "Ċ", "<0x0A>", "<0xE2>", "<unk>", "<s>", "</s>", "<pad>", "<|endoftext|>", "[INST] x [/INST]",
]

WORDS = TRAINING.split()
PIECES = list("abcdefgxyzABCDEFGXYZ0123456789 .,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`\n\t") + list(SPACES) + \
    ["'s", "'ll", "'RE", " 's", "\r\n", "\n\n", "  ", "    ", "é", "e\u0301", "ß", "ñ", "ж", "Ж", "λ", "Σ", "中", "文", "字", "の", "カ", "가", "각", "\u1100", "\u1161", "م", "ا",
     "न", "्", "\u0301", "\u0327", "\u0308", "\u200d", "\ufe0f", "🙂", "👩", "🏽", "🇩", "½", "²", "Ⅷ", "٣", "€", "—", "“", "…", "▁", "ª", "ǅ", "ſ", "K", "İ", "\U00010400", "\U0001d400"]


def random_code_point(rng):
    while True:
        c = rng.choice([rng.randrange(0x80), rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x20000),
                        rng.randrange(0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def random_texts(rng, count):
    texts = []
    for i in range(count):
        size = rng.choice([1, 2, 3, 5, 8, 13, 21, 34])
        kind = i % 4
        if kind == 0:
            texts.append("".join(rng.choice(PIECES) for _ in range(size)))
        elif kind == 1:
            texts.append("".join(random_code_point(rng) for _ in range(min(size, 13))))
        elif kind == 2:
            texts.append(rng.choice(["", " ", "\n"]) + rng.choice([" ", "  ", "\n", ""]).join(rng.choice(WORDS) for _ in range(min(size, 8))))
        else:
            start = rng.randrange(len(TRAINING))
            texts.append(TRAINING[start:start + 3 * size])
    return texts


def texts_with_tokens(rng, tokens, count):
    """Texts around the added tokens: alone, doubled, inside words, between spaces, cut short."""
    texts = []
    for token in tokens[:12]:
        texts += [token, token + token, f"a{token}b", f" {token} ", f"a {token} b", f"a  {token}  b", f"\n{token}\n", f"{token} x", f"x {token}", f"x{token}x {token}",
                  token[:-1], token[1:], token[:1] + token, token.upper(), token.lower(), f"é{token}中", f"_{token}.", f"'{token}'"]
    for _ in range(count):
        size = rng.choice([2, 4, 7])
        texts.append("".join(rng.choice([rng.choice(tokens), rng.choice(WORDS), rng.choice(PIECES), rng.choice([" ", "  ", "\n"])]) for _ in range(size)))
    return texts


def all_texts(added_tokens, seed, count):
    rng = random.Random(seed)
    texts = list(FIXED)
    texts += [f"a{c}b{c}{c}c {c} d{c}" for c in SPACES]
    texts += texts_with_tokens(rng, added_tokens, count // 4) if added_tokens else []
    texts += random_texts(rng, count)
    return list(dict.fromkeys(texts))
