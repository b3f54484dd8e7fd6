// What the golden data cannot say of the template language: errors and their lines, limits, the sandbox, the marks.
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja/json.h"
#include "engine/text/jinja/template.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cadre::jinja {
namespace {

using ::testing::HasSubstr;

absl::Status ParseError(std::string_view source) { return Template::Parse(source).status(); }

absl::StatusOr<Text> Render(std::string_view source, const Dict& variables = {}, const RenderOptions& options = {}) {
  absl::StatusOr<Template> parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(variables, options);
}

std::string RenderOk(std::string_view source, const Dict& variables = {}) {
  const absl::StatusOr<Text> text = Render(source, variables);
  EXPECT_TRUE(text.ok()) << source << ": " << text.status();
  return text.ok() ? text->bytes() : "";
}

absl::Status RenderError(std::string_view source, const RenderLimits& limits = {}) {
  RenderOptions options;
  options.limits = limits;
  return Render(source, {}, options).status();
}

void ExpectMessage(const absl::Status& status, absl::StatusCode code, std::string_view part) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(part)));
}

TEST(JinjaTest, SyntaxErrorsNameTheLine) {
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectMessage(ParseError("a\n{% if x %}\nb"), kInvalid, "expected elif or else or endif");
  ExpectMessage(ParseError("a\n\n{{ 1 + }}"), kInvalid, "line 3: expected an expression");
  ExpectMessage(ParseError("{{ 'abc }}"), kInvalid, "line 1: a string is not closed");
  ExpectMessage(ParseError("{{ a ! b }}"), kInvalid, "unexpected character \"!\"");
  ExpectMessage(ParseError("x\n{% nonsense %}"), kInvalid, "line 2: unknown tag \"nonsense\"");
  ExpectMessage(ParseError("{{ (1, 2] }}"), kInvalid, "unexpected ']'");
  ExpectMessage(ParseError("{{ a\n\n"), kInvalid, "line 1: a tag {{ is not closed");
  ExpectMessage(ParseError("{% break %}"), kInvalid, "outside of a for loop");
  ExpectMessage(ParseError("{% set true = 1 %}"), kInvalid, "cannot assign to true");
  ExpectMessage(ParseError("\n{{ " + std::string(kMaxNameBytes + 1, 'x') + " }}"), kInvalid,
                "line 2: a name of 257 bytes, the limit is 256");
  EXPECT_TRUE(ParseError("{{ " + std::string(kMaxNameBytes, 'x') + " }}").ok());
  ExpectMessage(ParseError("\xFF"), kInvalid, "UTF-8");
  ExpectMessage(ParseError(std::string(kMaxTemplateBytes + 1, 'x')), kInvalid, "the limit is 1048576");
}

TEST(JinjaTest, WhatIsOutsideOfTheSubsetIsRefusedByNameAndLine) {
  constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
  ExpectMessage(ParseError("\n{{ x | urlize }}"), kUnimplemented, "line 2: the filter \"urlize\"");
  ExpectMessage(ParseError("{{ x is weird }}"), kUnimplemented, "line 1: the test \"weird\"");
  ExpectMessage(ParseError("\n\n{% include 'x' %}"), kUnimplemented, "line 3: the tag 'include'");
}

TEST(JinjaTest, WhatDoesNotExistInABranchFailsOnlyWhereItIsReached) {
  EXPECT_EQ(RenderOk("{% if x %}{% for y in x %}{{ y | nonsense }}{% endfor %}{% endif %}a"), "a");
  EXPECT_EQ(RenderOk("{% if 'x' %}b{% elif x is weird %}{% endif %}"), "b");
  EXPECT_EQ(RenderOk("{{ x | nonsense if x else 'c' }}"), "c");
  constexpr absl::StatusCode kFailed = absl::StatusCode::kFailedPrecondition;
  ExpectMessage(RenderError("{% if 1 %}\n{{ x | nonsense }}{% endif %}"), kFailed,
                "line 2: the filter \"nonsense\" is not supported");
  ExpectMessage(RenderError("{% if 1 is weird %}{% endif %}"), kFailed, "line 1: the test \"weird\" is not supported");
  ExpectMessage(ParseError("{% if x %}{{ x | nonsense }}{% endif %}\n{{ x | more }}"), absl::StatusCode::kUnimplemented,
                "line 2: the filter \"more\"");
}

TEST(JinjaTest, RuntimeErrorsNameTheLine) {
  constexpr absl::StatusCode kFailed = absl::StatusCode::kFailedPrecondition;
  ExpectMessage(RenderError("a\n{{ x.y.z }}"), kFailed, "line 2: 'x' is undefined");
  ExpectMessage(RenderError("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}"), kFailed,
                "line 2: division by zero");
  ExpectMessage(RenderError("{{ 'a' + 1 }}"), kFailed, "'+' is not possible between str and int");
  ExpectMessage(RenderError("{{ 9223372036854775807 + 1 }}"), kFailed, "64 bits");
  ExpectMessage(RenderError("{{ [1].append(2) }}"), kFailed, "'append' of a list is not allowed");
  ExpectMessage(RenderError("{{ {}.update({}) }}"), kFailed, "'update' of a dict is not allowed");
}

TEST(JinjaTest, WhatATemplateRaisesIsItsOwnMessageCutToALength) {
  const absl::Status status = RenderError("\n{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(status, absl::InvalidArgumentError("roles must alternate"));
  const absl::Status cut = RenderError("{{ raise_exception('é' * 1000) }}");
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cut.message().size(), kMaxExceptionBytes + 3);
  EXPECT_THAT(std::string(cut.message()), ::testing::EndsWith("é..."));
}

// "n0=0, n1=1, ...".
std::string ManyNames(int count) {
  std::string names;
  for (int i = 0; i < count; ++i) absl::StrAppend(&names, "n", i, "=", i, ", ");
  return names;
}

TEST(JinjaTest, HostileTemplatesMeetALimit) {
  constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;
  ExpectMessage(RenderError("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
                kExhausted, "line 1: more than 5000000 steps");
  ExpectMessage(RenderError("\n{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}"
                            "{% set ns.x = ns.x + ns.x %}{% endfor %}"),
                kExhausted, "line 2: a text of 8388608 bytes, the limit is 4194304");
  ExpectMessage(RenderError("{{ 'ab' * 99999999 }}"), kExhausted, "the limit is 4194304");
  ExpectMessage(RenderError("{{ [0] * 99999999 }}"), kExhausted, "limit");
  ExpectMessage(RenderError("{{ range(1000000) }}"), kExhausted, "a range of 1000000 numbers, the limit is 100000");
  ExpectMessage(RenderError("{{ range(-9223372036854775807, 9223372036854775807) }}"), kExhausted, "limit is 100000");
  ExpectMessage(RenderError("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), kExhausted,
                "nested deeper than 400 levels");
  ExpectMessage(
      RenderError("{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
      kExhausted, "more than 100 lists and dicts");
  ExpectMessage(RenderError("{{ '%999999999d' % 1 }}"), kExhausted, "the limit");
  ExpectMessage(RenderError("{{ '{:>999999999}'.format(1) }}"), kExhausted, "the limit");
  ExpectMessage(RenderError("{{ 'x'.center(999999999) }}"), kExhausted, "the limit is 4194304");
  ExpectMessage(RenderError("{{ ('a' * 4000000).replace('', 'bb') }}"), kExhausted, "limit");
  // Values that print nothing, and what stands between them.
  ExpectMessage(RenderError("{{ ([x] * 100000) | join(' ' * 4000000) }}"), kExhausted, "the limit is 4194304");
}

// Called again and again from outside of itself, a loop is no deeper inside others.
TEST(JinjaTest, ALoopThatIsKeptCanBeCalledManyTimes) {
  EXPECT_EQ(RenderOk("{% set ns = namespace(n=0) %}{% for x in [0] recursive %}{% set ns.l = loop %}"
                     "{% set ns.n = ns.n + 1 %}{% endfor %}{% for i in range(99999) %}{{ ns.l([0]) }}{% endfor %}"
                     "{{ ns.n }}"),
            "100000");
}

// Each of these is done often with a text of millions of bytes, which is not what it returns.
TEST(JinjaTest, WhatIsReadOrCopiedIsPaidForWhateverTheResult) {
  RenderLimits limits;
  limits.steps = 500'000;  // a loop of 9999 turns that do nothing takes less than a quarter of them
  const std::string setup =
      "{% set s = 'a' * 4000000 %}{% set spaces = ' ' * 4000000 %}{% set dots = '.' * 100000 %}"
      "{% set d = {s: 1} %}{% set ns = namespace(a=1) %}{% for i in range(9999) %}";
  for (const std::string use : {"{% set x = namespace(d) %}",
                                "{% set x = dict(d) %}",
                                "{% set x = dict(**d) %}",
                                "{% set x = '' | format(**d) %}",
                                "{% set x = ns | attr(s) %}",
                                "{% set x = ns[s] %}",
                                "{% set x = spaces | trim %}",
                                "{% set x = s | center(1) %}",
                                "{% set x = s.center(1) %}",
                                "{% set x = s.ljust(1) %}",
                                "{% set x = s.rjust(1) %}",
                                "{% set x = s.zfill(1) %}",
                                "{% set x = s | float %}",
                                "{% set x = 'b'.find(s) %}",
                                "{% set x = 'b'.rfind(s) %}",
                                "{% set x = 'b'.count(s) %}",
                                "{% set x = 'b'.partition(s) %}",
                                "{% set x = 'b'.rpartition(s) %}",
                                "{% set x = 'b'.split(s) %}",
                                "{% set x = 'b'.rsplit(s) %}",
                                "{% set x = 'b'.replace(s, '') %}",
                                "{% set x = 'b' | replace(s, '') %}",
                                "{% set x = [] | sort(attribute=s) %}",
                                "{% set x = [] | sort(attribute=dots) %}",
                                "{% set x = [] | sum(dots) %}",
                                "{% set x = [] | join('', dots) %}",
                                "{% set x = [] | max(attribute=dots) %}",
                                "{% set x = [] | unique(attribute=dots) %}",
                                "{% set x = [] | groupby(dots) %}",
                                "{% set x = [1] | map(attribute=s) | list %}"}) {
    ExpectMessage(RenderError(setup + use + "{% endfor %}", limits), absl::StatusCode::kResourceExhausted,
                  "more than 500000 steps");
  }
  ExpectMessage(RenderError("{% set d = dict(" + ManyNames(1000) + ") %}{{ ('{n999}' * 10000).format(**d) }}", limits),
                absl::StatusCode::kResourceExhausted, "more than 500000 steps");
}

// What an undefined value says of a name is one line, however long the name.
TEST(JinjaTest, ALongNameIsCutInTheErrorThatNamesIt) {
  const absl::Status status = RenderError("{% set s = 'a' * 4000000 %}{{ ({} | attr(s)).x }}");
  ExpectMessage(status, absl::StatusCode::kFailedPrecondition, "a dict has no attribute of the name \"aaa");
  EXPECT_LT(status.message().size(), 300u);
}

// A list that holds a value twice, which does so itself: a few objects, and more values than any machine could visit.
TEST(JinjaTest, WhatIsThereOftenIsPaidForAsOften) {
  constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;
  const std::string twice =
      "{% set ns = namespace(a=[1], b=[1], t=(1,)) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
      "{% set ns.b = [ns.b, ns.b] %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}";
  const std::string big = "{% set s = 'a' * 1000000 %}{% set l = [s] * 100000 %}";
  for (const std::string use : {"{{ ns.a }}",
                                "{{ ns.a ~ '' }}",
                                "{{ ns.a | string }}",
                                "{{ '%s' % [ns.a] }}",
                                "{{ '%r' % [ns.a] }}",
                                "{{ '{}'.format(ns.a) }}",
                                "{{ '{!r}'.format(ns.a) }}",
                                "{{ ns.a | upper }}",
                                "{{ ns.a is upper }}",
                                "{{ ns.a | tojson }}",
                                "{{ raise_exception(ns.a) }}",
                                "{{ ns.a == ns.b }}",
                                "{{ ns.a < ns.b }}",
                                "{{ ns.a in [ns.b] }}",
                                "{{ [ns.b].count(ns.a) }}",
                                "{{ [ns.b].index(ns.a) }}",
                                "{{ [ns.a, ns.b] | sort }}",
                                "{{ [ns.a, ns.b] | max }}",
                                "{{ {ns.t: 1} }}",
                                "{{ {1: 1}[ns.t] }}",
                                "{{ {}.get(ns.t) }}",
                                "{{ ns.t in {} }}",
                                "{{ [ns.t] | unique | list }}",
                                "{{ dict([(ns.t, 1)]) }}",
                                "{{ ns.a is eq ns.b }}",
                                "{% for i in [ns.a, ns.b] %}{{ loop.changed(i) }}{% endfor %}",
                                "{{ [[ns.a], [ns.b]] | groupby(0) }}"}) {
    ExpectMessage(RenderError(twice + use), kExhausted, "limit");
  }
  for (const std::string use : {"{{ l }}", "{{ l | string }}", "{{ l | join }}", "{{ l | sort }}",
                                "{% for x in l %}{{ x < s ~ 'b' }}{% endfor %}", "{{ l | unique | list }}"}) {
    ExpectMessage(RenderError(big + use), kExhausted, "limit");
  }
}

// Each of these took the square of its length.
TEST(JinjaTest, SearchesTakeTimeInProportion) {
  EXPECT_EQ(RenderOk("{{ ('a ' * 1000000).rsplit() | length }}"), "1000000");
  EXPECT_EQ(RenderOk("{{ ('a' * 2000000).find('a' * 1000000 ~ 'b') }}"), "-1");
  EXPECT_EQ(RenderOk("{{ ('a' * 2000000).rfind('b' ~ 'a' * 1000000) }}"), "-1");
  EXPECT_EQ(RenderOk("{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') | length }}"), "0");
  EXPECT_EQ(RenderOk("{{ 'abcabc'.rsplit('bc', 1) }}{{ 'aaa'.rsplit('aa') }}{{ 'xaxb'.rfind('x') }}"),
            "['abca', '']['a', '']2");
}

TEST(JinjaTest, DeepTemplatesMeetALimitWhileTheyAreParsed) {
  constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;
  const auto repeat = [](std::string_view part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
  };
  constexpr int kDeep = 20000;
  for (const std::string& source :
       {"{{ " + repeat("(", kDeep) + "1" + repeat(")", kDeep) + " }}",
        "{{ " + repeat("[", kDeep) + repeat("]", kDeep) + " }}", "{{ " + repeat("not ", kDeep) + "1 }}",
        "{{ " + repeat("-", kDeep) + "1 }}", "{{ 1" + repeat("+1", kDeep) + " }}", "{{ x" + repeat(".a", kDeep) + " }}",
        "{{ x" + repeat("|upper", kDeep) + " }}", "{{ x" + repeat("[0]", kDeep) + " }}",
        repeat("{% if x %}", kDeep) + repeat("{% endif %}", kDeep),
        "{% set " + repeat("(", kDeep) + "a" + repeat(")", kDeep) + "=1 %}",
        "{{ " + repeat("1 if 1 else ", kDeep) + "2 }}", "{{ a" + repeat(" if b", kDeep) + " }}"}) {
    ExpectMessage(ParseError(source), kExhausted, "line 1: ");
  }
}

TEST(JinjaTest, SmallerLimitsHold) {
  RenderLimits limits;
  limits.steps = 50;
  ExpectMessage(RenderError("{% for i in range(100) %}x{% endfor %}", limits), absl::StatusCode::kResourceExhausted,
                "more than 50 steps");
  limits = {};
  limits.output_bytes = 10;
  ExpectMessage(RenderError("0123456789{{ 1 }}", limits), absl::StatusCode::kResourceExhausted, "the limit is 10");
  EXPECT_TRUE(RenderError("0123456789", limits).ok());
}

TEST(JinjaTest, NothingOfTheInterpreterCanBeReached) {
  EXPECT_EQ(RenderOk("{{ ''.__class__ }}|{{ x.__init__ }}|{{ [].__len__ }}",
                     [] {
                       Dict variables;
                       variables.Set("x", Value::Mapping({}));
                       return variables;
                     }()),
            "||");
  ExpectMessage(RenderError("{{ ''.__class__.__mro__ }}"), absl::StatusCode::kFailedPrecondition, "__class__");
  ExpectMessage(RenderError("{{ ''.__class__() }}"), absl::StatusCode::kFailedPrecondition, "__class__");
  ExpectMessage(RenderError("{{ '{0.__class__.x}'.format(1) }}"), absl::StatusCode::kFailedPrecondition, "__class__");
  // Objects that hold themselves are freed with the rendering; the leak checker of the sanitizer builds sees to it.
  EXPECT_EQ(RenderOk("{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{% endmacro %}{% set ns.m = m %}ok"),
            "ok");
}

Dict ClientVariables() {
  Dict variables;
  variables.Set("c", Value::String(Text::FromClient("Cd-e")));
  return variables;
}

// The text with the client's parts in braces.
std::string Marked(std::string_view source) {
  const absl::StatusOr<Text> text = Render(source, ClientVariables());
  EXPECT_TRUE(text.ok()) << source << ": " << text.status();
  if (!text.ok()) return "";
  std::string marked = text->bytes();
  for (auto span = text->client_spans().rbegin(); span != text->client_spans().rend(); ++span) {
    marked.insert(span->end, 1, '}');
    marked.insert(span->begin, 1, '{');
  }
  return marked;
}

TEST(JinjaTest, TextKeepsTheMarksOfTheClient) {
  EXPECT_EQ(Marked("a{{ c }}b"), "a{Cd-e}b");
  EXPECT_EQ(Marked("{{ 'x' + c + 'y' ~ c }}"), "x{Cd-e}y{Cd-e}");
  EXPECT_EQ(Marked("{{ c[1:] }}|{{ ('ab' + c)[::-1] }}"), "{d-e}|{e-dC}ba");
  EXPECT_EQ(Marked("{{ c | upper }}{{ c.lower() }}{{ c | title }}{{ c | trim('C') }}"), "{CD-Ecd-eCd-Ed-e}");
  EXPECT_EQ(Marked("{{ c | replace('-', '+') }} {{ 'a-b' | replace('-', c) }}"), "{Cd}+{e} a{Cd-e}b");
  EXPECT_EQ(Marked("{{ [c, 1] | tojson }} {{ {c: 'x'} }} {{ [c] }}"), "[\"{Cd-e}\", 1] {'{Cd-e}': 'x'} ['{Cd-e}']");
  EXPECT_EQ(Marked("{{ [c, 'x'] | join(', ') }} {{ c.split('-') | join('+') }}"), "{Cd-e}, x {Cd}+{e}");
  EXPECT_EQ(Marked("{{ '%s:%5s' % (c, 'x') }} {{ '{:>6}'.format(c) }}"), "{Cd-e}:    x   {Cd-e}");
  EXPECT_EQ(Marked("{{ '%s' | format(**{c: 'x'}) }} {{ '%s' | format(**{'x': c}) }}"),
            "{'{Cd-e}': 'x'} {'x': '{Cd-e}'}");
  EXPECT_EQ(Marked("{% set x %}<{{ c }}>{% endset %}{{ x | indent }}{{ c | list | last }}{{ c.partition('-')[2] }}"),
            "<{Cd-e}>{ee}");
  EXPECT_EQ(Marked("{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(c) }}{% for k in c %}{{ k }}.{% endfor %}"),
            "[{Cd-e}]{C}.{d}.{-}.{e}.");
}

// What stands around and between the values is somebody's text, too.
TEST(JinjaTest, ParametersKeepTheMarksOfTheClient) {
  EXPECT_EQ(Marked("{{ [1] | tojson(indent=c) }} {{ [1, 2] | tojson(separators=(c, ':')) }}"),
            "[\n{Cd-e}1\n] [1{Cd-e}2]");
  EXPECT_EQ(Marked("{{ {'a': 1} | tojson(separators=(',', c)) }}"), "{\"a\"{Cd-e}1}");
  EXPECT_EQ(Marked("{{ 'a'.ljust(3, c[0]) }}{{ 'a'.center(3, c[0]) }}{{ 'abcdefgh' | truncate(5, true, c, 0) }}"),
            "a{CCC}a{C}a{Cd-e}");
  EXPECT_EQ(Marked("{{ ('{:' ~ c[0] ~ '>3}').format(1) }}{{ (c[0] ~ '%%') % () }}{{ ('%' ~ '%') % () }}"), "{CC1C}%%");
  EXPECT_EQ(Marked("{{ strftime_now(c) }}{{ strftime_now('x') }}"), "{Cd-e}x");
  EXPECT_EQ(Marked("{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(**{c: 1}) }}{{ dict(**{c: 2}) }}"),
            "{'{Cd-e}': 1}{'{Cd-e}': 2}");
}

TEST(JinjaTest, JsonOfClientsIsReadAsItStands) {
  const absl::StatusOr<Value> value =
      ReadJson(R"({"b": 1, "a": [1.0, -0.5e3, null], "b": "é\u00e9", "big": 9007199254740993})");
  ASSERT_TRUE(value.ok()) << value.status();
  Dict variables;
  variables.Set("v", *value);
  EXPECT_EQ(RenderOk("{{ v | tojson }}", variables),
            R"({"b": "éé", "a": [1.0, -500.0, null], "big": 9007199254740993})");
  for (const std::string_view bad : {"", "{", "[1,]", "nul", "{\"a\": 18446744073709551616}", "1 2", "\"\xFF\""}) {
    EXPECT_EQ(ReadJson(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(ReadJson(std::string("1\0", 2)).ok());
  EXPECT_FALSE(ReadJson(std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']')).ok());
  EXPECT_TRUE(ReadJson(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')).ok());
}

TEST(JinjaTest, TheClockIsTheCallers) {
  RenderOptions options;
  options.now = absl::FromUnixSeconds(1754049600);
  options.time_zone = absl::UTCTimeZone();
  const absl::StatusOr<Text> text = Render("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f %% [%Z]') }}", {}, options);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->bytes(), "2025-08-01 12:00:00.000000 % []");
}

}  // namespace
}  // namespace cadre::jinja
