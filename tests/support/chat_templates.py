"""Chat templates in the forms of the field's model families, and conversations for them.

Written for these tests after the forms that the families' own templates have: their control texts, their helpers,
their refusals, and the parts of Jinja that they use.
"""

from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endgeneration %}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

PHI = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' and message['content'] -%}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}
{%- elif message['role'] == 'user' -%}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}
{%- elif message['role'] == 'assistant' -%}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- else -%}{{ eos_token }}{%- endif -%}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif -%}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("conversation roles must alternate user and assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of a system message!") }}
    {%- endif %}
{%- endfor %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Given the following functions, respond with a JSON for a function call.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions.\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(
        message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}
                {%- set reasoning_content = reasoning_content.lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' }}
            {{- content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['tool_calls'] is defined %}{%- set ns.is_tool = false -%}"
    "{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}"
    "{{'<|Assistant|><|calls|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\\n' + '```json' + '\\n' "
    "+ tool['function']['arguments'] + '\\n' + '```'}}{%- set ns.is_first = true -%}"
    "{%- else %}{{'\\n' + tool['type'] + '<|sep|>' + tool['function']['name']}}{%- endif %}{%- endfor %}"
    "{%- elif message['role'] == 'assistant' and message['content'] is not none %}"
    "{%- if ns.is_tool %}{{'<|outputs_end|>' + message['content'] + '<|eos|>'}}{%- set ns.is_tool = false -%}"
    "{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<|Assistant|>' + content + '<|eos|>'}}{%- endif %}{%- endif %}"
    "{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}"
    "{{'<|outputs|>' + message['content']}}{%- set ns.is_output_first = false %}"
    "{%- else %}{{'\\n' + message['content']}}{%- endif %}{%- endif %}"
    "{%- endfor -%}{% if ns.is_tool %}{{'<|outputs_end|>'}}{% endif %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|>'}}{% endif %}"
)

# a recursive macro that writes types, a date, a loop that is left: as the templates with a schema language have it
TYPESCRIPT = """\
{%- macro type_of(spec, required) -%}
    {%- if spec.enum -%}
        {{- spec.enum|map('tojson')|join(' | ') -}}
    {%- elif spec.type == 'array' -%}
        {{- type_of(spec['items'], required) ~ '[]' -}}
    {%- elif spec.type == 'object' -%}
        {{- '{ ' -}}
        {%- for name, inner in (spec.properties or {}).items() -%}
            {{- name ~ ('' if name in (spec.required or []) else '?') ~ ': ' -}}
            {{- type_of(inner, spec.required or []) -}}
            {{- '; ' if not loop.last else ' ' -}}
        {%- endfor -%}
        {{- '}' -}}
    {%- else -%}
        {{- {'integer': 'number', 'string': 'string'}.get(spec.type, 'any') -}}
    {%- endif -%}
{%- endmacro -%}
{%- set date = strftime_now('%Y') -%}
{{- '<|start|>system<|message|>Year: ' + (date|length|string) + ' digits<|end|>' -}}
{%- for tool in tools or [] -%}
    {%- if loop.index > 8 -%}{%- break -%}{%- endif -%}
    {{- '<|tool|>' + tool.function.name|upper + ' = ' -}}
    {{- type_of(tool.function.parameters, []) ~ '\n' -}}
{%- endfor -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{%- continue -%}{%- endif -%}
    {{- '<|start|>' ~ message.role ~ (' to=' ~ message.name if message.name else '') ~ '<|message|>' -}}
    {{- message.content|indent(2)|replace('\t', ' ') -}}
    {%- for call in message.tool_calls or [] -%}
        {%- set given = call.function.arguments|tojson(separators=(',', ':'), sort_keys=true) -%}
        {{- '%s(%s)'|format(call.function.name, given) -}}
    {%- endfor -%}
    {{- '<|end|>' -}}
{%- endfor -%}
{{- '<|start|>assistant' if add_generation_prompt -}}
"""

ALL = {
    "chatml": CHATML,
    "zephyr": ZEPHYR,
    "phi": PHI,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "llama3": LLAMA3,
    "qwen": QWEN,
    "deepseek": DEEPSEEK,
    "typescript": TYPESCRIPT,
}

TAKE_TOOLS = ("llama3", "mistral", "qwen", "typescript")

USER: dict[str, Any] = {"role": "user", "content": ' What\'s the weather in "Zürich" 🐝?\n'}
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be brief. "}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSunny."}
AGAIN: dict[str, Any] = {"role": "user", "content": "And tomorrow?\n\tWell?"}


def called(arguments: Any) -> dict[str, Any]:
    """An assistant's turn that calls a tool."""
    function = {"name": "weather", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": "call00001", "type": "function", "function": function}]}


RESULT: dict[str, Any] = {"role": "tool", "content": '{"t": 21}', "name": "weather", "tool_call_id": "call00001"}

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <here> & now",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["°C", "°F"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["city"],
        },
    },
}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [USER],
    "with system": [SYSTEM, USER],
    "several turns": [USER, ANSWER, AGAIN],
    "system and turns": [SYSTEM, USER, ANSWER, AGAIN],
    "tool called": [USER, called({"city": "Zürich", "days": [1, 2]}), RESULT],
    "tool called, arguments as text": [USER, called('{"city": "Zürich"}'), RESULT, ANSWER, AGAIN],
    "two turns of one role": [USER, USER],
}

# of SYSTEM, USER and a call with {"b": [1, 2.5, None], "a": {"x": True}}
EXPRESSIONS = (
    "messages|map(attribute='role')|join(', ')",
    "messages|join('+', attribute='role')",
    "messages|selectattr('role', 'in', ['user', 'system'])|list|length",
    "messages|rejectattr('tool_calls', 'defined')|map(attribute='content')|map('trim')|list",
    "messages|batch(2, 'none')|list|length",
    "messages|slice(2)|map('first')|map(attribute='role')|list",
    "messages[::2]|map(attribute='role')|list ~ messages[-1].role ~ messages[:1][0]['role']",
    "messages[2].tool_calls[0].function.arguments.b|string",
    "messages[2].tool_calls[0].function.arguments|dictsort",
    "messages[2].tool_calls[0].function.arguments.items()|list",
    "messages[2].tool_calls[0].function.arguments|items|list",
    "messages[2].tool_calls[0].function.arguments.keys()|list ~ messages[0].values()|list",
    "messages[2].tool_calls[0].function.arguments|tojson(indent=2, sort_keys=true)",
    "messages[2].tool_calls[0].function.arguments.get('c', 'none')",
    "messages[0].copy() == messages[0]",
    "'a,b,,c'.split(',') ~ 'a b  c'.split() ~ 'a,b,c'.split(',', 1) ~ 'a,b,c'.rsplit(',', 1)",
    "'a\nb\r\nc'.splitlines() ~ 'a-b'.partition('-') ~ 'a-b-c'.rpartition('-')",
    "'abcabc'.find('c') ~ 'abcabc'.rfind('c') ~ 'abcabc'.index('b') ~ 'abcabc'.count('a')",
    "'xxaxx'.strip('x') ~ ' a '.lstrip() ~ ' a '.rstrip() ~ '|'",
    "'ab'.startswith('a') ~ 'ab'.endswith(('x', 'b')) ~ 'ab'.removeprefix('a') ~ 'ab'.removesuffix('b')",
    "'a'.ljust(3, '.') ~ 'a'.rjust(3) ~ 'a'.center(3, '-') ~ '7'.zfill(3) ~ ('a'|center(5))",
    "'{} {b!r:>5}'.format('a', b='x') ~ '{0[role]}'.format(messages[0]) ~ '{:.2f}'.format(1.234)",
    "'%s is %05.1f%%' % ('x', 12.34) ~ '%(a)s' % {'a': [1]} ~ '%s-%s'|format(1, none)",
    "'-'.join(['a', 'b']) ~ [1, 'b']|join ~ 'aXbX'.replace('X', 'yy', 1) ~ 'aXbX'|replace('X', '')",
    "'a\nb\n\nc'|indent(2) ~ 'a\nb'|indent('> ', true)",
    "'one two'|title ~ 'oNe'|capitalize ~ 'one'|upper ~ 'ONE'|lower ~ ' x '|trim ~ 'xxa'|trim('x')",
    "'<a & b>'|e ~ '<b>'|safe ~ 'a long text of words'|truncate(9)",
    "[3, 1, 2]|sort ~ [3, 1]|sort(reverse=true) ~ [1, 1, 2]|unique|list ~ [1, 2]|reverse|list ~ 'abc'|reverse",
    "[1, 2, 3]|sum ~ [[1], [2]]|sum(start=[]) ~ [1, 5]|max ~ [1, 5]|min ~ [1, 5]|first ~ [1, 5]|last",
    "messages|sum(attribute='missing', start=0) if false else [{'n': 1}, {'n': 2}]|sum(attribute='n')",
    "'12'|int ~ 'x'|int(7) ~ 'ff'|int(base=16) ~ '1.5'|float ~ 2.567|round(1) ~ 2.1|round(0, 'ceil') ~ -3|abs",
    "2 ** 10 ~ 7 // 2 ~ 7 % 4 ~ 7 / 2 ~ (3 - 5) ~ (-3 * 2) ~ 'ab' * 3 ~ [1] * 2 ~ ((1, 2) + (3,)) ~ (1.5 + 1)",
    "nothing|default('x') ~ ''|default('y', true) ~ nothing|d('z') ~ none",
    "dict(a=1, **{'b': 2}) ~ dict([('c', 3)]) ~ {'a': messages|length}.a ~ (1, messages|length)[1]",
    "range(3)|list ~ range(1, 9, 3)|list ~ [1, 2].index(2) ~ [1, 1].count(1)",
    "'a' in 'abc' and 2 in [1, 2] and 'role' in messages[0] and 'x' not in 'abc' and 1 < 2 <= 2",
    "(1 is odd) ~ (2 is even) ~ (4 is divisibleby 2) ~ ('a' is string) ~ ({} is mapping) ~ (none is none)",
    "messages[0].role.upper() ~ messages[0]['content'].strip().lower() ~ messages[0].missing ~ messages[9]",
    "['a', 'b']|map('upper')|map('replace', 'A', 'x')|list ~ [1, 2, 3]|select('odd')|list ~ [1, 2]|reject('odd')|list",
    "'\u00e9'|tojson(ensure_ascii=true) ~ {'b': 1, 'a': 2}|tojson(separators=(',', ':')) ~ ['é']|tojson",
    "('a'|attr('missing')) ~ 5|string ~ 'abc'|count ~ 'abc'|list ~ [[1, 2], [3]]|map('length')|list",
)
