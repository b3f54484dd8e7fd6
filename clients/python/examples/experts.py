"""Which experts a text uses: the distribution of load with and without it, layer by layer.

    python3 examples/experts.py "Some text" [address]
"""

import sys

from cadre_client import Client, GenerateOptions


def main() -> None:
    text = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
    address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"
    with Client(address, timeout=60) as client:
        before = client.expert_stats(window=False)
        client.generate(text, GenerateOptions(max_tokens=32))
        after = client.expert_stats(window=False)
    print("layer  tokens  busiest experts (share of the assignments)")
    for old, new in zip(before.total, after.total):
        loads = [b - a for a, b in zip(old.processed, new.processed)]
        total = max(1, sum(loads))
        ranked = sorted(range(len(loads)), key=lambda expert: -loads[expert])[:4]
        shares = "  ".join(f"{expert:3d} {100 * loads[expert] / total:4.1f} %" for expert in ranked)
        print(f"{new.layer:5d}  {new.tokens - old.tokens:6d}  {shares}")


if __name__ == "__main__":
    main()
