"""A conversation in the terminal: the history goes with every request, as the server keeps none.

    python3 examples/chat.py [address]
"""

import sys

from cadre_client import CadreError, Chat, Client, GenerateOptions, Message


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    history: list[Message] = []
    with Client(address, timeout=120) as client:
        while True:
            try:
                said = input("> ")
            except EOFError:
                return
            history.append(Message("user", said))
            try:
                with client.stream(Chat(history), GenerateOptions(max_tokens=256)) as stream:
                    for text in stream.texts():
                        print(text, end="", flush=True)
                print()
                history.append(Message("assistant", stream.result().text))
            except CadreError as error:
                history.pop()
                print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
