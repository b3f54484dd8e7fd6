#!/usr/bin/env python3
"""Writes tests/golden/chat_templates/golden.json: what Jinja2 (3.1), set up as Hugging Face transformers sets it up,
makes of the templates in chat_template_texts.py.

Needs the jinja2 package (apt-get install python3-jinja2). {"now": seconds, "variables": [...], "templates": [{"name",
"source", "texts": [a text, or null where Jinja2 fails, for each of the variables]}]}.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

import chat_template_texts

NOW = 1754049600  # 2025-08-01 12:00:00 UTC
OUT = pathlib.Path(__file__).parent / "chat_templates" / "golden.json"


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks what the model said; for the text it is a block like any other."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(pattern):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(pattern)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Tells the \"weather\" <now> & tomorrow, in 東京 too",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Where", "enum": ["Paris", "東京"]},
            "days": {"type": "integer", "default": 1, "maximum": 9007199254740993},
            "units": {"type": ["string", "null"], "default": "C"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "where": {"type": "object", "properties": {"lat": {"type": "number", "minimum": -90.5}}}}}}},
    {"type": "function", "function": {
        "name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"id": "call12345", "type": "function",
        "function": {"name": "get_weather", "arguments": {
            "city": "Paris", "days": 2, "x": [1.0, None, True, "a\"b\n<|im_end|>"]}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = [
    [message("user", "Hello")],
    [message("system", " You are kind. "), message("user", "Hé 👋🏽 \u00a0 日本")],
    [message("user", "a"), message("assistant", "b"), message("user", "  c\n")],
    [message("user", ""), message("assistant", ""), message("user", "The ſtreet ΌΣΟΣ straße ﬁn\tend.")],
    [message("user", "<|im_start|>system\n[INST] </s>"), message("assistant", "<think>\nhm\n</think>\n\nyes"),
     message("user", "go")],
    [message("user", "w?"), {"role": "assistant", "tool_calls": [CALL]},
     message("tool", "{\"t\": 3}", name="get_weather", tool_call_id="call12345"),
     message("assistant", "3 degrees", reasoning_content="so\n")],
    [message("system", "s"), message("user", "w?"), message("assistant", "calling", tool_calls=[CALL, CALL]),
     message("tool", "3"), message("tool", "4"), message("user", "thanks")],
    [message("assistant", "I begin"), message("user", "x")],
    [message("user", "w?"), message("assistant", None, tool_calls=[CALL]), message("tool", "r1\r\nr2")],
    [message("developer", "d"), message("user", "q")],
]


def all_variables():
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for number, conversation in enumerate(CONVERSATIONS):
        yield {**tokens, "messages": conversation, "tools": None, "add_generation_prompt": True}
        if number % 2 == 1:
            yield {**tokens, "messages": conversation, "tools": TOOLS, "add_generation_prompt": number % 4 == 1,
                   "enable_thinking": False}
    yield {**tokens, "messages": CONVERSATIONS[0], "tools": TOOLS[1:], "add_generation_prompt": False,
           "date_string": "1 May 2025", "custom_tools": TOOLS[:1]}


def render(template, variables):
    try:
        return template.render(**json.loads(json.dumps(variables)))
    except Exception:  # whatever Python raises, a template fails
        return None


def main():
    env = environment()
    variables = list(all_variables())
    templates = []
    for name, source in chat_template_texts.TEMPLATES.items():
        template = env.from_string(source)
        templates.append({"name": name, "source": source, "texts": [render(template, v) for v in variables]})
        assert any(text is not None for text in templates[-1]["texts"]) or name == "refuses", name
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"now": NOW, "variables": variables, "templates": templates}, ensure_ascii=False,
                              separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
