"""Templates written for the tests, by name: together they use what published chat templates use."""

TEMPLATES = {
    "turns": """{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<|user|>\\n' + message['content'] + eos_token }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|assistant|>\\n' + (message['content'] or '') + eos_token }}
    {%- else %}
        {{- '<|' ~ message['role'] ~ '|>\\n' ~ message.content | trim }}
    {%- endif %}
    {{- '\\n' if not loop.last }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\n<|assistant|>\\n' }}{% endif %}
""",
    "brackets": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = none %}{% endif %}
{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate: ' ~ message['role'] ~ ' at ' ~ loop.index0) }}{% endif %}
{% if loop.first and system is not none %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + \
message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + content | trim + ' [/INST]' }}{% else %}{{ ' ' + content + eos_token }}\
{% endif %}{% endfor %}""",
    "functions": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Functions\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string
           and not (message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<result>\\n' }}{{- content }}{{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Given the following functions, respond with JSON.\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
""",
    "types": """{%- macro type_of(schema) -%}
    {%- if schema.enum is defined and schema.enum -%}
        {%- for value in schema.enum -%}{{- '"' ~ value ~ '"' -}}{{- " | " if not loop.last -}}{%- endfor -%}
    {%- elif schema.type == "array" -%}
        {{- type_of(schema['items'] | default({})) ~ '[]' -}}
    {%- elif schema.type is iterable and schema.type is not string -%}
        {{- schema.type | join(' | ') -}}
    {%- elif schema.type == "object" -%}
        {%- if schema.properties -%}
            {{- "{\\n" -}}
            {%- for name, spec in schema.properties.items() -%}
                {%- if spec.description -%}{{- "// " + spec.description + "\\n" -}}{%- endif -%}
                {{- name }}{{ '' if name in (schema.required or []) else '?' }}{{- ": " -}}{{- type_of(spec) -}}
                {%- if spec.default is defined -%}
                    {%- if spec.default is string -%}{{- ', // default: "' ~ spec.default ~ '"' -}}
                    {%- else -%}{{- ', // default: ' ~ spec.default -}}{%- endif -%}
                {%- endif -%}
                {{- ",\\n" if not loop.last else "\\n" -}}
            {%- endfor -%}
            {{- "}" -}}
        {%- else -%}{{- 'object' -}}{%- endif -%}
    {%- else -%}{{- schema.type | default('any') -}}{%- endif -%}
{%- endmacro -%}
{%- macro namespace_of(functions, name='functions', sep="\\n") -%}
    {{- "namespace " + name + " {" + sep }}
    {%- for tool in functions %}
        {%- set f = tool.function %}
        {{- "type " + f.name + " = (" + ("_: " + type_of(f.parameters) if f.parameters.properties else "") + ") => any;" }}
        {{- sep -}}
    {%- endfor %}
    {{- "} // namespace " + name }}
{%- endmacro -%}
{%- if tools -%}{{- namespace_of(tools) -}}{{- namespace_of(tools, sep=' ', name='n') -}}{%- endif -%}
{%- for m in messages -%}{{- m.role ~ ':' ~ (m.content | default('-', true)) ~ ';' -}}{%- endfor -%}
""",
    "filters": """{{ messages | map(attribute='role') | join(',') }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}
{{ messages | rejectattr('tool_calls', 'defined') | list | length }} {{ messages | last | items | first }}
{{ (messages | first).content | upper | replace('A', '4') | truncate(12, true, '…') }}
{{ messages | map(attribute='role') | unique | sort(reverse=true) | join('/') }}
{%- for role, group in messages | groupby('role') %} {{ role }}={{ group | length }}{% endfor %}
{{ {'b': 1, 'a': [1.0, none, true], 'ü': '</s>'} | tojson }} {{ {'b': 1, 'A': 2} | dictsort }}
{{ [1, 2, 3, 4, 5] | batch(2) | map('sum') | list }} {{ range(10, 0, -3) | list }} {{ [3, 1, 2] | max }}
{{ 'a-b c' | title }} {{ 'ab\\ncd' | indent(2, true) }} {{ '%s has %05.1f and %d' % ('x', 2.25, 7) }} {{ 7 // -2 }} {{ -7 % 3 }}
{{ 2 ** 10 }} {{ 1e16 }} {{ 0.1 + 0.2 }} {{ 3.0 }} {{ 10 / 4 }} {{ '3.7' | int }} {{ 'x' | int(9) }} {{ 2.5 | round }}
{{ "it's" ~ ['it\\'s', "q\\"q", 'é\\n', 1.5, none, {'k': (1,)}] }} {{ 'a,b,,c'.split(',') }} {{ ' a b  c '.split() }}
{{ 'Hello'[1:3] }}{{ 'Hello'[::-1] }}{{ 'Hello'[-1] }} {{ 'x' in 'xyz' and 'q' not in ['a'] }} {{ 1 < 2 <= 2 }}""",
    "scopes": """{% set x = 1 %}{% set ns = namespace(n=0, seen=[]) %}
{% for m in messages %}
  {% set x = x + 1 %}
  {% set ns.n = ns.n + x %}
  {% if m.role == 'tool' %}{% continue %}{% endif %}
  {% set ns.seen = ns.seen + [loop.index] %}
  {% if loop.index > 4 %}{% break %}{% endif %}
  {{ loop.index }}/{{ loop.length }} {{ loop.previtem.role if loop.previtem is defined else '^' }} \
{{ (loop.nextitem or {}).role | default('$') }} {{ loop.cycle('odd', 'even') }} {{ loop.revindex0 }} {{ loop.changed(m.role) }}
{% else %}
  nobody
{% endfor %}
x={{ x }} n={{ ns.n }} seen={{ ns.seen }}
{% set block | trim | upper %}
   {{ messages[-1].role }} said
{% endset %}[{{ block }}]
{% with a = 1, b = [2, 3] %}{% set x = a %}{{ a }}{{ b[1] }}{% endwith %} {{ a is defined }}
{% macro wrap(tag, depth=1) %}<{{ tag }}>{{ caller(depth) }}{{ varargs | length }}{{ kwargs.z }}</{{ tag }}>{% endmacro %}
{% call(d) wrap('p', 2, 8, z='Z') %}in{{ d }}{% endcall %}
{% filter indent(2) %}line
line{% endfilter %}
{% raw %}{{ raw }} {% if %}{% endraw %}{# comment #}
{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% set p, q = 'pq' %}{{ q }}{{ p }}
{% generation %}generated{% endgeneration %}
{%- set j = joiner('; ') %}{% for i in range(3) %}{{ j() }}{{ i }}{% endfor %}
{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}""",
    "white_space": """a  {%- if true %}  b
  {% if true %}
    c
  {% endif -%}
  d {%+ if true +%}
e{% endif %}{% endif %}
   {# gone #}
f {{- ' g ' -}} h {{ 'i' }}
  {%- for x in [1, 2] -%}
    {{ x }}
  {%- endfor -%}
\tj
{% if true -%}   k {%- endif %}
    {% raw -%}  l  {%- endraw %}

{{ messages | length }}
""",
    "tests": """{% for v in [none, true, false, 0, 1, 2.5, '', 'a', 'A1', [], (1,), {}, {'k': 1}, missing, messages, [0, 1]] %}
{{ v is defined }}{{ v is none }}{{ v is true }}{{ v is false }}{{ v is boolean }}{{ v is number }}{{ v is integer }}\
{{ v is float }}{{ v is string }}{{ v is mapping }}{{ v is sequence }}{{ v is iterable }}{{ v is callable }}\
{{ v is in [1, 'a'] }}{{ v is eq 1 }}{{ v is sameas none }}{{ v is lower }}{{ v is upper }}{{ not v }}{{ (v or 'x')|string|length > 0 }}
{% endfor %}{{ 4 is even }}{{ 3 is odd }}{{ 9 is divisibleby 3 }}{{ 3 is gt 2 }}{{ 3 is not le 2 }}{{ (undefined_thing is defined) if false }}""",
    "strings": """{% set s = messages[-1].content | string %}
{{ [s.strip(), s.lstrip(), s.rstrip(), s.upper(), s.lower(), s.title(), s.capitalize()] }}
{{ [s.find('e'), s.count('e'), s.startswith(('H', 'T')), s.endswith('.'), s.isspace(), s[:3].isalpha(), s.replace('e', '<e>', 2)] }}
{{ [s.split('e', 1), s.rsplit(None, 1), s.splitlines(), s.partition(' '), s.zfill(5), s.center(30, '*'), ', '.join(['a', s])] }}
{{ ['{} {:>5} {name!r}'.format(1, 'x', name=s), s.removeprefix('He'), s.upper is defined, s.lower is callable] }}
{{ s | length }} {{ s | wordcount }} {{ s | list | first }} {{ s | reverse }} {{ s | tojson(ensure_ascii=true) }}""",
    "nested": """{% set tree = [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': [{'v': 4, 'c': []}]}]}, {'v': 5}] %}
{% for x in tree if x.v != 9 recursive %}
{{ '-' * loop.depth0 }}{{ x.v }}/{{ loop.length }}{{ loop(x.c) if x.c }}{{ loop.depth }}
{% else %}nothing{% endfor %}
{% macro properties(schema) %}{% for k, v in (schema.properties or {}).items() recursive %}{{ k }}:{{ v.type }}\
{% if v.properties is defined %}({{ loop(v.properties.items()) | trim }}){% endif %}{{ '' if loop.last else ', ' }}\
{% endfor %}{% endmacro %}
{% for tool in tools or [] %}{{ properties(tool.function.parameters) }};{% endfor %}
{{ ['aBc'.swapcase(), 'a\\tb\\n\\tc'.expandtabs(4), 'Straße ﬁ ŒΣ'.casefold(), 'A Bc'.istitle(), 'aB'.istitle()] }}
{{ ['é'.isprintable(), '\\x07'.isprintable(), 'a b a c'.rsplit(' ', 2), 'axbxc'.rsplit('x'), 'abab'.rfind('ab')] }}""",
    "refuses": """{% if messages | selectattr('role', 'equalto', 'tool') | list %}{{ raise_exception('No tools: ' ~ messages) }}\
{% endif %}{{ messages[99].content }}{% if messages[0].role == 'user' %}{{ messages[0].nothing.here }}{% endif %}ok""",
}
