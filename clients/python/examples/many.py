"""Sends many prompts at once with the asyncio client, at most so many in flight, and prints the answers in order.

    python3 examples/many.py [address]
"""

import asyncio
import sys

from cadre_client import AsyncClient, GenerateOptions

PROMPTS = [f"{n} + {n} =" for n in range(1, 21)]
IN_FLIGHT = 8


async def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncClient(address, timeout=60) as client:

        async def answer(prompt: str) -> str:
            async with gate:
                result = await client.generate(prompt, GenerateOptions(max_tokens=8, temperature=0))
                return result.text

        for prompt, text in zip(PROMPTS, await asyncio.gather(*map(answer, PROMPTS))):
            print(prompt, text.strip().splitlines()[0] if text.strip() else "")


if __name__ == "__main__":
    asyncio.run(main())
