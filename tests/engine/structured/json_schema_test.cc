#include "engine/structured/json_schema.h"

#include <array>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/strings.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/number_pattern.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/json_validator.h"
#include "tests/support/structured_walk.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

// [{name, schema, valid: values, invalid: values, invalid_texts: texts, rambles: random walks rarely end}]
Json Cases() {
  std::ifstream file("tests/engine/structured/schemas.json");
  std::stringstream text;
  text << file.rdbuf();
  return Json::parse(text.str());
}

std::shared_ptr<const GrammarConstraint> Compile(const Json& schema, const std::shared_ptr<const TokenVocabulary>& v) {
  CompiledConstraint constraint = ConstrainToJsonSchema(schema.dump(), v);
  EXPECT_TRUE(constraint.ok()) << constraint.status() << " " << schema;
  return constraint.ok() ? *constraint : nullptr;
}

TEST(JsonSchemaTest, WhatIsGeneratedConforms) {
  const auto vocabulary = ByteVocabulary(JsonPieces());
  std::mt19937_64 random(11);
  for (const Json& test : Cases()) {
    SCOPED_TRACE(test["name"]);
    const auto constraint = Compile(test["schema"], vocabulary);
    ASSERT_NE(constraint, nullptr);
    int num_finished = 0;
    for (int i = 0; i < 60; ++i) {
      const WalkResult walk = RandomWalk(*constraint, *vocabulary, random, 1 + static_cast<int>(random() % 60));
      if (!walk.is_finished) continue;
      ++num_finished;
      const auto value = ParseOrderedJson(walk.text, "output", 200, 100'000);
      // Keys that are not listed may come twice, which our reader refuses and others accept.
      if (!value.ok() && std::string(value.status().message()).find("duplicate key") != std::string::npos) continue;
      ASSERT_TRUE(value.ok()) << value.status() << walk.text;
      EXPECT_EQ(FindViolation(test["schema"], *value, test["schema"]), "") << walk.text;
    }
    EXPECT_TRUE(test.contains("rambles") || num_finished >= 50) << num_finished;
  }
}

TEST(JsonSchemaTest, ConformingDocumentsAreAcceptedAndOthersNot) {
  const auto vocabulary = ByteVocabulary(JsonPieces());
  std::mt19937_64 random(12);
  for (const Json& test : Cases()) {
    SCOPED_TRACE(test["name"]);
    const auto constraint = Compile(test["schema"], vocabulary);
    ASSERT_NE(constraint, nullptr);
    for (const Json& value : test["valid"]) {
      // The oracle agrees that the cases are right.
      EXPECT_EQ(FindViolation(test["schema"], value, test["schema"]), "") << value;
      for (const std::string& text : {value.dump(), value.dump(2), value.dump(4), value.dump(1, '\t')}) {
        EXPECT_TRUE(Accepts(*constraint, *vocabulary, text, random)) << text;
        EXPECT_FALSE(Accepts(*constraint, *vocabulary, text + "}", random)) << text;
      }
    }
    for (const Json& value : test.value("invalid", Json::array())) {
      EXPECT_FALSE(Accepts(*constraint, *vocabulary, value.dump(), random)) << value;
    }
    for (const std::string text : test.value("invalid_texts", Json::array())) {
      EXPECT_FALSE(Accepts(*constraint, *vocabulary, text, random)) << text;
    }
  }
}

TEST(JsonSchemaTest, WhiteSpaceIsBounded) {
  const auto vocabulary = ByteVocabulary(JsonPieces());
  std::mt19937_64 random(13);
  const auto constraint = Compile(Json::parse(R"({"type":"array","items":{"type":"integer"}})"), vocabulary);
  for (const std::string text : {"[1,2]", "[1, 2]", "[ 1 ]", "[\n  1,\n  2\n]", "[\n\t1\n]", "[]", "[ ]"}) {
    EXPECT_TRUE(Accepts(*constraint, *vocabulary, text, random)) << text;
  }
  EXPECT_TRUE(Accepts(*constraint, *vocabulary, "[\n" + std::string(64, ' ') + "1]", random));
  EXPECT_FALSE(Accepts(*constraint, *vocabulary, "[\n" + std::string(65, ' ') + "1]", random));
  for (const std::string text : {"[1,  2]", " [1]", "[1] ", "[1]\n", "[\n\n1]", "[1 ,2]", "[\t1]", "[1,\r\n2]"}) {
    EXPECT_FALSE(Accepts(*constraint, *vocabulary, text, random)) << text;
  }
}

TEST(JsonSchemaTest, RecursionEndsInTimeAtTheDepthLimit) {
  const auto vocabulary = ByteVocabulary();
  const auto constraint = Compile(
      Json::parse(R"({"$ref":"#/$defs/L","$defs":{"L":{"type":"array","items":{"$ref":"#/$defs/L"}}}})"), vocabulary);
  const std::unique_ptr<ConstraintState> state = constraint->Start();
  int depth = 0;
  for (; IsAllowed(*state, '['); ++depth) state->Advance('[');
  EXPECT_GE(depth, 100);
  EXPECT_LE(depth, kMaxCallDepth + 1);
  for (; depth > 0; --depth) {
    ASSERT_TRUE(IsAllowed(*state, ']')) << depth;
    state->Advance(']');
  }
  EXPECT_TRUE(state->done());
}

TEST(JsonSchemaTest, RequiredNestingNearTheDepthLimitIsNeverADeadEnd) {
  // Each list needs two more levels to end, and one way in is deeper than the other.
  const auto vocabulary = ByteVocabulary();
  const auto constraint =
      Compile(Json::parse(R"({"$defs":{"L":{"type":"array","minItems":1,"items":{"anyOf":[{"$ref":"#/$defs/L"},
        {"type":"array","minItems":1,"items":{"type":"array","items":{"$ref":"#/$defs/L"}}}]}}},"$ref":"#/$defs/L"})"),
              vocabulary);
  std::mt19937_64 random(3);
  for (int i = 0; i < 20; ++i) {
    const std::unique_ptr<ConstraintState> state = constraint->Start();
    for (int step = 0; step < 3000 && !state->done(); ++step) {
      const std::vector<int32_t> allowed = AllowedList(*state);
      ASSERT_FALSE(allowed.empty());
      const bool opens = step < 400 && IsAllowed(*state, '[');
      const bool closes = !opens && IsAllowed(*state, ']');
      state->Advance(opens ? '[' : closes ? ']' : allowed[random() % allowed.size()]);
    }
    EXPECT_TRUE(state->done());
  }
}

std::string ErrorOf(std::string_view schema, absl::StatusCode code) {
  const CompiledConstraint constraint = ConstrainToJsonSchema(schema, ByteVocabulary());
  EXPECT_EQ(constraint.status().code(), code) << schema << " " << constraint.status();
  return std::string(constraint.status().message());
}

TEST(JsonSchemaTest, UnsupportedKeywordsAreNamedWithTheirPlace) {
  constexpr auto kCode = absl::StatusCode::kUnimplemented;
  EXPECT_EQ(ErrorOf(R"({"type":"object","properties":{"a/b":{"not":{}}}})", kCode),
            "#/properties/a~1b: the keyword \"not\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"items":[{}],"prefixItems":[{}]})", kCode),
            "#: \"items\" as a list beside \"prefixItems\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"items":{},"additionalItems":false})", kCode),
            "#: the keyword \"additionalItems\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"items":{"contains":{}}})", kCode), "#/items: the keyword \"contains\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"propertyNames":{"not":{}}})", kCode), "#/propertyNames: the keyword \"not\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"propertyNames":{"anyOf":[{}]}})", kCode), "#/propertyNames: \"anyOf\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"type":"object","minProperties":2})", kCode),
            "#: \"minProperties\" above 1 beside properties that are not listed is not supported");
  EXPECT_EQ(ErrorOf(R"({"anyOf":[{},{"if":{}}]})", kCode), "#/anyOf/1: the keyword \"if\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"type":"array","uniqueItems":true})", kCode), "#: \"uniqueItems\": true is not supported");
  EXPECT_THAT(ErrorOf(R"({"type":"string","format":"iri"})", kCode),
              HasSubstr("#: the format \"iri\" (supported: date, "));
  EXPECT_EQ(ErrorOf(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", kCode),
            "#: \"oneOf\" whose alternatives 0 and 1 may both hold (anyOf asks for one or both) is not supported");
  EXPECT_EQ(ErrorOf(R"-({"properties":{"a":{"pattern":"a(?=b)"}}})-", kCode),
            "#/properties/a/pattern: look-around (?=...) is not supported at byte 1 of the expression");
  EXPECT_EQ(ErrorOf(R"({"$ref":"other.json#/a"})", kCode),
            "#: \"$ref\" to \"other.json#/a\", outside this document or by anchor, is not supported");
  EXPECT_EQ(ErrorOf(R"({"allOf":[{"pattern":"a"},{"pattern":"b"}]})", kCode),
            "#: \"pattern\" in two parts of allOf, or beside $ref is not supported");
  EXPECT_EQ(
      ErrorOf(R"({"allOf":[{"patternProperties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]})",
              kCode),
      "#: \"additionalProperties\" beside \"patternProperties\" in a part of allOf, or beside $ref, whose properties "
      "differ is not supported");
  EXPECT_EQ(ErrorOf(R"({"enum":["a"],"pattern":"a"})", kCode), "#: \"pattern\" beside enum or const is not supported");
  EXPECT_EQ(ErrorOf(R"({"const":{"a":1},"properties":{}})", kCode),
            "#: \"properties\" beside enum or const is not supported");
  EXPECT_EQ(ErrorOf(R"({"const":4,"multipleOf":2})", kCode), "#: \"multipleOf\" beside enum or const is not supported");
  EXPECT_EQ(ErrorOf(R"({"minLength":20000})", kCode),
            "#: \"minLength\" of 20000, above the limit of 16384, is not supported");
}

// A keyword says nothing of values of another type: without `type` they conform, though they are not generated.
TEST(JsonSchemaTest, OneOfCountsValuesThatConformAndAreNotGenerated) {
  for (const char* schema :
       {R"({"oneOf":[{"type":"string"},{"properties":{"a":{"type":"integer"}},"required":["a"]}]})",
        R"({"oneOf":[{"minLength":5},{"type":"number"}]})", R"({"oneOf":[{"minLength":5},{"minimum":3}]})",
        R"({"type":["string","number"],"oneOf":[{"minLength":5},{"minimum":5}]})",
        R"({"oneOf":[{"const":"x"},{"minimum":3}]})",
        R"({"oneOf":[{"type":"string"},{"anyOf":[{"type":"null"},{"minimum":1}]}]})",
        R"({"oneOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
                     {"type":"object","properties":{"a":{"minLength":1}},"required":["a"]}]})"}) {
    EXPECT_THAT(ErrorOf(schema, absl::StatusCode::kUnimplemented), HasSubstr("may both hold")) << schema;
  }
}

TEST(JsonSchemaTest, MalformedSchemasAreRefusedWithTheirPlace) {
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(ErrorOf("{", kCode), "#: invalid JSON at line 1, byte 2");
  EXPECT_EQ(ErrorOf("3", kCode), "#: a schema is neither an object nor a boolean");
  EXPECT_EQ(ErrorOf(R"({"type":"strin"})", kCode), "#: \"type\" is \"\\\"strin\\\"\"");
  EXPECT_EQ(ErrorOf(R"({"$ref":"#/$defs/A"})", kCode), "#: \"$ref\" to \"#/$defs/A\", which does not exist");
  EXPECT_THAT(ErrorOf(R"({"$ref":"#"})", kCode), HasSubstr("leads back to itself"));
  EXPECT_EQ(ErrorOf(R"({"anyOf":[{"type":"null"},{"$ref":"#"}]})", kCode),
            "#: the schema asks for itself without anything around it");
  EXPECT_EQ(ErrorOf(R"({"items":{"minItems":-1}})", kCode), "#/items: \"minItems\" is \"-1\", no count");
  EXPECT_EQ(ErrorOf(R"({"properties":{"a":{"pattern":"("}}})", kCode),
            "#/properties/a/pattern: a group does not end at byte 1 of the expression");
  EXPECT_EQ(ErrorOf(R"({"exclusiveMinimum":true})", kCode), "#: \"exclusiveMinimum\" is \"true\", no number");
  EXPECT_EQ(ErrorOf(R"({"multipleOf":0})", kCode), "#: \"multipleOf\" is \"0\", no number above 0");
  EXPECT_EQ(ErrorOf(R"({"multipleOf":"2"})", kCode), "#: \"multipleOf\" is \"\\\"2\\\"\", no number above 0");
}

TEST(JsonSchemaTest, WhatNothingConformsToIsRefused) {
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  constexpr char kNothing[] = "#: nothing conforms, or the tokens of the model cannot spell it";
  for (const char* schema :
       {"false", R"({"type":"integer","minimum":3,"maximum":2})", R"({"type":"string","minLength":3,"maxLength":2})",
        R"({"type":"string","pattern":"^a$","maxLength":0})",
        R"({"type":"object","properties":{"a":false},"required":["a"]})",
        R"({"allOf":[{"type":"string"},{"type":"integer"}]})", R"({"enum":[]})", R"({"enum":["a"],"type":"integer"})",
        R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
        R"({"type":"object","required":["a"],"additionalProperties":false})",
        R"({"allOf":[{"type":"object","additionalProperties":false},{"properties":{"a":{}},"required":["a"]}]})",
        R"({"type":"array","minItems":2,"maxItems":1})", R"({"allOf":[{"const":1},{"const":2}]})"}) {
    EXPECT_EQ(ErrorOf(schema, kCode), kNothing) << schema;
  }
}

TEST(JsonSchemaTest, HostileSchemasAreRefusedQuickly) {
  std::string deep(100'000, '[');
  EXPECT_THAT(ErrorOf(deep, absl::StatusCode::kInvalidArgument), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(ErrorOf(std::string(kMaxSchemaBytes + 1, ' '), absl::StatusCode::kInvalidArgument),
              HasSubstr("the limit is 524288"));
  EXPECT_THAT(ErrorOf(R"({"type":"string","pattern":"(a{1,1000}){1,1000}"})", absl::StatusCode::kResourceExhausted),
              HasSubstr("#/pattern: the expression, its repetitions written out, needs more than 60000 states"));
  EXPECT_THAT(ErrorOf(R"({"type":"string","pattern":"(a|b)*a(a|b){30}"})", absl::StatusCode::kResourceExhausted),
              HasSubstr("#/pattern: the expression needs more than 30000 states"));
  for (const char* divisor : {"1234567", "1e300", "0.1234567"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat(R"({"multipleOf":)", divisor, "}"), absl::StatusCode::kResourceExhausted),
                HasSubstr("#/multipleOf: the multiples need more than 10000 states"));
  }
  // Each definition is twice the one before it.
  std::string doubling = R"({"$ref":"#/$defs/d40","$defs":{"d0":{"type":"null"})";
  for (int i = 1; i <= 40; ++i) {
    const std::string ref = absl::StrCat(R"({"$ref":"#/$defs/d)", i - 1, R"("})");
    absl::StrAppend(&doubling, ",\"d", i, R"(":{"type":"array","minItems":2,"maxItems":2,"items":)", ref, "}");
  }
  EXPECT_TRUE(ConstrainToJsonSchema(doubling + "}}", ByteVocabulary()).ok());
  std::string chain = R"({"$ref":"#/$defs/d2000","$defs":{"d0":{"type":"null"})";
  for (int i = 1; i <= 2000; ++i) absl::StrAppend(&chain, ",\"d", i, R"(":{"$ref":"#/$defs/d)", i - 1, "\"}");
  EXPECT_THAT(ErrorOf(chain + "}}", absl::StatusCode::kInvalidArgument), HasSubstr("that follow each other"));
  std::string wide = R"({"type":"object","additionalProperties":true,"maxProperties":16000,"properties":{"p":{})";
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&wide, ",\"p", i, "\":{}");
  EXPECT_THAT(ErrorOf(wide + "}}", absl::StatusCode::kResourceExhausted),
              HasSubstr("1001 properties, counted up to 16000"));
}

// Each expression is within the limits; all of them together would take minutes.
TEST(JsonSchemaTest, WhatAllExpressionsCostTogetherIsLimited) {
  Json properties;
  Json alternatives = Json::array();
  for (int i = 0; i < 1000; ++i) {
    properties[absl::StrCat("p", i)] = Json{{"type", "null"}};
    alternatives.push_back({{"pattern", absl::StrCat("(a|b)*a(a|b){12}c", i)}});
  }
  EXPECT_THAT(ErrorOf(Json{{"anyOf", alternatives}}.dump(), absl::StatusCode::kResourceExhausted),
              HasSubstr("/pattern: the schema needs more than 80000000 steps to compile"));
  // The expression of many properties is compiled once.
  const Json one = {{"properties", properties}, {"patternProperties", {{"(a|b)*a(a|b){10}", true}}}};
  EXPECT_TRUE(ConstrainToJsonSchema(one.dump(), ByteVocabulary()).ok());
  const Json lengths = {{"pattern", "(a|b)*a(a|b){12}"}, {"maxLength", 40}};
  EXPECT_THAT(ErrorOf(lengths.dump(), absl::StatusCode::kResourceExhausted), HasSubstr("more than 30000 states"));
}

std::string Ref(const std::string& name) { return absl::StrCat(R"({"$ref":"#/$defs/)", name, R"("})"); }

// `item`, so many times.
std::string ListOf(int count, const std::string& item) {
  std::string list = absl::StrCat("[", item);
  for (int i = 1; i < count; ++i) absl::StrAppend(&list, ",", item);
  return list + "]";
}

// What grows faster than the schema is charged, whatever it is. The bound is far above what a refusal takes (a second),
// and far below what these would take.
TEST(JsonSchemaTest, WhatIsNoExpressionIsLimitedToo) {
  const auto any_of = [](const std::string& list) { return absl::StrCat(R"({"anyOf":)", list, "}"); };
  // The same alternatives again and again are compared once.
  std::string nested = absl::StrCat(R"({"oneOf":[)", Ref("A"), R"(,{"type":"number"}],"$defs":{)");
  for (const auto& [name, next] : {std::pair("A", "B"), {"B", "C"}, {"C", "D"}}) {
    absl::StrAppend(&nested, "\"", name, "\":", any_of(ListOf(100, Ref(next))), ",");
  }
  absl::StrAppend(&nested, R"("D":)", any_of(ListOf(100, R"({"type":"string"})")), "}}");
  const Stopwatch nested_time;
  EXPECT_TRUE(ConstrainToJsonSchema(nested, ByteVocabulary()).ok());
  EXPECT_LT(nested_time.Seconds(), kRefusalSeconds);

  std::vector<std::string> hostile;
  const std::string strings = any_of(ListOf(4500, R"({"type":"string"})"));
  const std::string numbers = any_of(ListOf(4500, R"({"type":"number"})"));
  hostile.push_back(absl::StrCat(R"({"oneOf":[)", strings, ",", numbers, "]}"));
  // Merged again for each item.
  Json object = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 1500; ++i) object["properties"][absl::StrCat("p", i)] = Json{{"type", "string"}};
  Json other = object;
  other["properties"]["q"] = true;
  const std::string both = absl::StrCat(R"({"allOf":[)", Ref("A"), ",", Ref("B"), "]}");
  hostile.push_back(absl::StrCat(R"({"type":"array","prefixItems":)", ListOf(1900, both), R"(,"$defs":{"A":)",
                                 object.dump(), R"(,"B":)", other.dump(), "}}"));
  Json names = Json::array();
  for (int i = 0; i < 6000; ++i) names.push_back(absl::StrCat("n", i));
  hostile.push_back(absl::StrCat(R"({"type":"array","prefixItems":)", ListOf(1900, both),
                                 R"(,"$defs":{"A":{"required":["a"]},"B":{"required":)", names.dump(), "}}}"));
  hostile.push_back(any_of(ListOf(9900, R"({"minimum":1e-220})")));
  // Every property of the one must conform to what the other says of additional ones.
  Json listing = {{"properties", Json::object()}};
  for (int i = 0; i < 9000; ++i) listing["properties"][absl::StrCat("p", i)] = Json::object();
  const Json others = {{"additionalProperties", {{"enum", names}}}};
  hostile.push_back(Json{{"allOf", {listing, others}}}.dump());
  Json closed = {{"propertyNames", false}, {"patternProperties", Json::object()}};
  for (int i = 0; i < 9900; ++i) closed["patternProperties"][absl::StrCat("^a", i, "$")] = true;
  for (const std::string& schema : hostile) {
    const Stopwatch time;
    EXPECT_THAT(ErrorOf(schema, absl::StatusCode::kResourceExhausted), HasSubstr("needs more than 80000000 steps"));
    EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds) << schema.substr(0, 80);
  }
  const Stopwatch time;
  EXPECT_TRUE(ConstrainToJsonSchema(closed.dump(), ByteVocabulary()).ok());  // no key conforms: {} does
  EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds);
}

// Names that many objects share are written out once; each list of them is charged.
TEST(JsonSchemaTest, ListsOfNamesAreSharedAndCharged) {
  Json list_of_names = {{"enum", Json::array()}};
  for (int i = 0; i < 250; ++i) list_of_names["enum"].push_back(absl::StrCat(i, std::string(1000, 'n')));
  const std::string object = absl::StrCat(R"({"type":"object","propertyNames":)", Ref("N"), R"(,"maxProperties":)");
  std::string objects = "[";
  for (int i = 0; i < 2500; ++i) {
    absl::StrAppend(&objects, i == 0 ? "" : ",", object, i, R"(,"additionalProperties":false})");
  }
  const Stopwatch time;
  const auto shared = CompileJsonSchema(
      absl::StrCat(R"({"type":"array","prefixItems":)", objects, R"(],"$defs":{"N":)", list_of_names.dump(), "}}"),
      ByteVocabulary()->spelled());
  EXPECT_TRUE(shared.ok()) << shared.status();
  EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds);

  // Lists of their own, and expressions that take the rest of what a schema may.
  const auto with_lists = [&](int num_expressions, int num_lists) {
    Json alternatives = Json::array();
    for (int i = 0; i < num_expressions; ++i) {
      alternatives.push_back({{"pattern", absl::StrCat("(a|b)*a(a|b){12}c", i)}});
    }
    Json items = Json::array();
    if (num_expressions > 0) items.push_back({{"anyOf", alternatives}});
    for (int i = 0; i < num_lists; ++i) {
      Json types = {"string"};
      for (int bit = 0; bit < 4; ++bit) {
        if ((i >> bit & 1) != 0) types.push_back(std::array{"null", "array", "object", "boolean"}[bit]);
      }
      const Json names = {{"$ref", "#/$defs/N"}, {"type", types}};
      items.push_back({{"propertyNames", names}, {"additionalProperties", false}});
    }
    const Json schema = {{"type", "array"}, {"prefixItems", items}, {"$defs", {{"N", list_of_names}}}};
    return CompileJsonSchema(schema.dump(), ByteVocabulary()->spelled()).status();
  };
  EXPECT_TRUE(with_lists(4, 0).ok());
  EXPECT_TRUE(with_lists(0, 12).ok());
  EXPECT_EQ(with_lists(4, 12).code(), absl::StatusCode::kResourceExhausted);
}

TEST(JsonSchemaTest, BoundsBeyondAllNumbersAreCharged) {
  NumberBounds bounds;
  bounds.minimum = Decimal::FromJson(1e200);
  const absl::StatusOr<ByteDfa> none = IntegerDfa(bounds);
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
  EXPECT_GT(none->work(), 0);
  bounds = {};
  bounds.maximum = Decimal::FromJson(-1e200);
  EXPECT_GT(NumberDfa(bounds)->work(), 0);
}

// What an expression takes before it is deterministic counts as well.
TEST(JsonSchemaTest, WritingOutExpressionsIsLimited) {
  Json alternatives = Json::array();
  for (int i = 0; i < 1000; ++i) {
    alternatives.push_back({{"pattern", absl::StrCat("^[^\\d\\D][02468ACEGIKMOQSUWYacegikmoqsuwy]{9999}", i)}});
  }
  std::string look_aheads = "^";
  for (int i = 0; i < 600; ++i) look_aheads += "(?=[02468ACEGIKMOQSUWYacegikmoqsuwy]{1600})";
  std::vector<Json> schemas = {Json{{"pattern", look_aheads + ".*$"}}};
#ifndef CADRE_SANITIZED  // A second of work is most of a minute there: too near the bound on a busy machine.
  schemas.push_back(Json{{"anyOf", alternatives}});
#endif
  for (const Json& schema : schemas) {
    const Stopwatch time;
    EXPECT_THAT(ErrorOf(schema.dump(), absl::StatusCode::kResourceExhausted), HasSubstr("steps to compile"));
    EXPECT_LT(time.Seconds(), 2 * kRefusalSeconds);
  }
}

}  // namespace
}  // namespace cadre
