"""llama.cpp as a library, through the low-level functions of llama-cpp-python."""

import contextlib
import ctypes
import re
import statistics
import time

import gguf
import llama_cpp
import numpy as np

# What llama.cpp's own quantizer is told to make for each --quantize of cadre.
FILE_TYPES = {"int8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "int4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
CONTEXT_PAD = 256  # positions; llama.cpp pads a sequence's part of the KV cache to it


def quantize(source, target, kind, parts, threads):
    """Makes `target` from the bfloat16 file `source`, as `llama-quantize --token-embedding-type bf16` would; where
    `parts` is "experts", with `--output-tensor-type bf16 --tensor-type attn_=bf16` too."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread = threads
    options.ftype = FILE_TYPES[kind]
    options.token_embedding_type = gguf.GGMLQuantizationType.BF16
    if parts == "experts":
        options.output_tensor_type = gguf.GGMLQuantizationType.BF16
        # llama.cpp reads up to the entry without a pattern.
        options.tt_overrides = (llama_cpp.llama_model_tensor_override * 2)((b"attn_", gguf.GGMLQuantizationType.BF16))
    partial = target.with_suffix(".partial")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), ctypes.byref(options)) != 0:
        raise RuntimeError(f"llama.cpp could not quantize {source}")
    partial.rename(target)


def tensor_types(path):
    """What a GGUF file holds, for people: the types of its matrices."""
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(str(path)).tensors if len(t.shape) > 1}
    kinds = {"experts": r"blk.*_exps", "attention": r"blk.*attn_", "router": r"blk.*ffn_gate_inp",
             "embedding": "token_embd", "head": "output"}
    return ", ".join(f"{kind} {'/'.join(sorted({t for name, t in types.items() if re.match(pattern, name)}))}"
                     for kind, pattern in kinds.items())


class Context:
    """`sequences` sequences side by side, each with its own part of the KV cache."""

    def __init__(self, model, vocab, threads, sequences, positions):
        self.vocab, self.sequences = vocab, sequences
        self.capacity = sequences * positions
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = sequences * -(-positions // CONTEXT_PAD) * CONTEXT_PAD
        options.n_seq_max = sequences
        options.n_batch = self.capacity
        options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = False  # the faster one where sequences share no prefix: no row sees others' keys
        self.context = llama_cpp.llama_init_from_model(model, options)
        if not self.context:
            raise RuntimeError(f"llama.cpp gave no context for {sequences} sequences of {positions} positions")
        self.batch = llama_cpp.llama_batch_init(self.capacity, 0, 1)

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def run(self, tokens, begin):
        """One call for tokens[sequence][i] at positions begin + i. Returns the seconds it took, and the logits of
        each sequence's last token."""
        batch, last = self.batch, []
        batch.n_tokens = tokens.size
        for s, row in enumerate(tokens.tolist()):
            for i, token in enumerate(row):
                at = s * len(row) + i
                batch.token[at], batch.pos[at] = token, begin + i
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, s
                batch.logits[at] = i + 1 == len(row)
            last.append((s + 1) * len(row) - 1)
        start = time.perf_counter()
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status} for {tokens.size} tokens")
        rows = [llama_cpp.llama_get_logits_ith(self.context, at) for at in last]
        return seconds, np.stack([np.ctypeslib.as_array(row, shape=(self.vocab,)) for row in rows])


class LlamaCpp:
    """A model of llama.cpp. Rates are tokens per second of the median step, as those of engine_bench."""

    def __init__(self, path, threads, vocab):
        self.threads, self.vocab = threads, vocab
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")

    def close(self):
        llama_cpp.llama_model_free(self.model)

    def context(self, sequences, positions):
        return contextlib.closing(Context(self.model, self.vocab, self.threads, sequences, positions))

    def prefill_rate(self, count, repeats, seed):
        generator = np.random.default_rng(seed)
        seconds = []
        with self.context(1, count) as context:
            for _ in range(repeats + 1):
                context.clear()
                seconds.append(context.run(generator.integers(3, self.vocab, (1, count)), 0)[0])
        return count / statistics.median(seconds[1:])  # the first run warms caches and pages

    def decode_rate(self, sequences, known, steps, repeats, seed):
        """Of steps of one token for each of `sequences` sequences after `known` tokens, different ones in each."""
        generator = np.random.default_rng(seed)
        seconds = []
        with self.context(sequences, known + steps) as context:
            for _ in range(repeats):
                context.clear()
                context.run(generator.integers(3, self.vocab, (sequences, known)), 0)
                for step in range(steps):
                    tokens = 3 + generator.choice(self.vocab - 3, (sequences, 1), replace=False)
                    seconds.append(context.run(tokens, known + step)[0])
        return sequences / statistics.median(seconds[1:])

    def greedy(self, prompts, steps):
        """The most likely continuations of prompts of equal length, all in one batch: tokens [prompt][step], and the
        logits [prompt, step, token] that they are the greatest of."""
        tokens, logits = [np.asarray(prompts)], []
        with self.context(len(prompts), len(prompts[0]) + steps) as context:
            for begin in range(len(prompts[0]), len(prompts[0]) + steps):
                logits.append(context.run(tokens[-1], begin - tokens[-1].shape[1])[1])
                tokens.append(logits[-1].argmax(axis=1)[:, None])
        return np.concatenate(tokens[1:], axis=1).tolist(), np.stack(logits, axis=1)
