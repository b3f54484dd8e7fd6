"""What the trained model can do, measured on the saved folder: losses, arithmetic, expert load, samples."""

import random

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo_model.corpus import DOMAINS, END_OF_TEXT, Corpus, make_problem, solve

EVALUATION_SEED = 1_000_003
DOCUMENTS = 100
PROBLEMS = 300
ANSWER_TOKENS = 5
PROMPTS = ["Once upon a time", "12 + 30 =", "def add(", "Il était une fois", '{"name": "Lily",']
SAMPLE_TOKENS = 80


def load(folder):
    """(model in float32, tokenizer), as any user of transformers would load them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def domain_report(model, tokenizer):
    """({domain: mean loss per token}, {domain: [L, E] share of the domain's assignments}) on unseen documents."""
    corpus = Corpus(EVALUATION_SEED)
    num_layers, num_experts = model.config.num_hidden_layers, model.config.num_experts
    losses, loads = {}, {}
    for domain in DOMAINS:
        loss_sum, num_tokens, counts = 0.0, 0, torch.zeros(num_layers, num_experts)
        for _ in range(DOCUMENTS):
            ids = torch.tensor([tokenizer(corpus.document(domain) + END_OF_TEXT).input_ids])
            output = model(input_ids=ids, output_router_logits=True)
            loss_sum += F.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="sum").item()
            num_tokens += ids.shape[1] - 1
            for layer, logits in enumerate(output.router_logits):
                chosen = logits.topk(model.config.num_experts_per_tok, dim=-1).indices
                counts[layer] += torch.bincount(chosen.flatten(), minlength=num_experts)
        losses[domain] = loss_sum / num_tokens
        loads[domain] = counts / counts.sum(dim=-1, keepdim=True)
    return losses, loads


def greedy_answer(model, tokenizer, prompt):
    """The first line of the greedy continuation, at most ANSWER_TOKENS tokens."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER_TOKENS, do_sample=False,
                            temperature=None, top_p=None)
    return tokenizer.decode(output[0, ids.shape[1]:], skip_special_tokens=True).split("\n")[0].strip()


def arithmetic_rate(model, tokenizer, held_out):
    """Share of problems answered exactly; each is a prompt of its own, such as 12 + 30 =."""
    rng = random.Random(EVALUATION_SEED)
    problems = [make_problem(rng, held_out) for _ in range(PROBLEMS)]
    right = sum(greedy_answer(model, tokenizer, f"{a} {operator} {b} =") == str(solve(a, operator, b))
                for a, operator, b in problems)
    return right / PROBLEMS


def print_expert_table(loads):
    """Per layer and expert: its share of all assignments, and of each domain in it, all domains weighing alike."""
    stacked = torch.stack([loads[domain] for domain in DOMAINS])
    domain_shares = stacked / stacked.sum(dim=0, keepdim=True)
    total = stacked.mean(dim=0)
    for layer in range(total.shape[0]):
        print(f"\nlayer {layer}   expert: load, share by domain ({', '.join(DOMAINS)})")
        for expert in range(total.shape[1]):
            shares = "  ".join(f"{share:4.0%}" for share in domain_shares[:, layer, expert].tolist())
            leader = DOMAINS[domain_shares[:, layer, expert].argmax().item()]
            print(f"  {expert:2d}: {total[layer, expert].item():5.1%}   {shares}   {leader}")
    print(f"\nleast used expert of all: {total.min().item():.2%} of its layer (even: {1 / total.shape[1]:.2%})")
    print(f"mean share of an expert's leading domain: {domain_shares.max(dim=0).values.mean().item():.0%} "
          f"(no specialization: {1 / len(DOMAINS):.0%})")


def print_samples(model, tokenizer):
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "What is 21 plus 34?"}], tokenize=False,
                                         add_generation_prompt=True)
    for prompt in PROMPTS + [chat]:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        mask = torch.ones_like(ids)
        greedy = model.generate(ids, attention_mask=mask, max_new_tokens=SAMPLE_TOKENS, do_sample=False,
                                temperature=None, top_p=None)
        torch.manual_seed(0)
        sampled = model.generate(ids, attention_mask=mask, max_new_tokens=SAMPLE_TOKENS)
        print(f"\nprompt {prompt!r}  ids {ids[0].tolist()}")
        print(f"  greedy ids {greedy[0, ids.shape[1]:].tolist()}")
        print(f"  greedy  {tokenizer.decode(greedy[0])!r}")
        print(f"  sampled {tokenizer.decode(sampled[0])!r}")


@torch.no_grad()
def evaluate(folder):
    """Prints the whole report for a saved folder."""
    model, tokenizer = load(folder)
    losses, loads = domain_report(model, tokenizer)
    print("held-out loss per token: " + "  ".join(f"{domain} {losses[domain]:.3f}" for domain in DOMAINS))
    seen, unseen = (arithmetic_rate(model, tokenizer, held_out) for held_out in (False, True))
    print(f"arithmetic, exact answers: {seen:.1%} of problems seen in training, {unseen:.1%} of problems never seen")
    print_expert_table(loads)
    print_samples(model, tokenizer)
