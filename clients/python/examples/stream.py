"""Streams a continuation, then shows how it ended.

    python3 examples/stream.py "Once upon a time" [address]
"""

import sys

from cadre_client import CadreError, Client, GenerateOptions


def main() -> int:
    prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
    address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"
    try:
        with Client(address, timeout=60) as client, client.stream(prompt, GenerateOptions(max_tokens=64)) as stream:
            for text in stream.texts():
                print(text, end="", flush=True)
            result = stream.result()
    except CadreError as error:
        print(error, file=sys.stderr)
        for violation in error.field_violations:
            print(f"  {violation.field}: {violation.description}", file=sys.stderr)
        return 1
    finished = result.completions[0].finished
    print(f"\n[{finished.reason.name}, {finished.usage.generated_tokens} tokens, seed {result.started.seed}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
