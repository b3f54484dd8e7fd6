#include "engine/structured/schema_merge.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/structured/json_schema.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/structured_walk.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using testing::HasSubstr;

// {"p0": schema, "p1": schema, ...}
SchemaJson Members(int count, const SchemaJson& schema) {
  SchemaJson members = SchemaJson::object();
  for (int i = 0; i < count; ++i) {
    members.get_ref<SchemaJson::object_t&>().emplace_back(absl::StrCat("p", i), schema);
  }
  return members;
}

SchemaJson WithPattern(size_t size) { return {{"pattern", std::string(size, 'a')}}; }

// A short schema that many places get a copy of may be long all the same.
TEST(SchemaMergeTest, CopiesAreChargedByTheirText) {
  const SchemaJson listing = {{"properties", Members(15'000, true)}};
  const SchemaJson tuple = {{"prefixItems", SchemaJson(SchemaJson::array_t(15'000, SchemaJson(true)))}};
  for (const char* keyword : {"additionalProperties", "items"}) {
    const SchemaJson& copied_to = std::string_view(keyword) == "items" ? tuple : listing;
    SchemaJson long_name = {{keyword, {{"properties", SchemaJson::object()}}}};
    long_name[keyword]["properties"][std::string(300'000, 'n')] = true;
    for (const SchemaJson& copied : {SchemaJson{{keyword, WithPattern(300'000)}}, long_name}) {
      ASSERT_GT(MergeSteps(copied_to, copied), int64_t{15'000} * 300'000) << keyword;
      ASSERT_GT(MergeSteps(copied, copied_to), int64_t{15'000} * 300'000) << keyword;
      const Stopwatch time;
      const CompiledConstraint refused =
          ConstrainToJsonSchema(SchemaJson{{"allOf", {copied_to, copied}}}.dump(), ByteVocabulary());
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr("needs more than 80000000 steps"));
      EXPECT_LT(time.Seconds(), kRefusalSeconds);
    }
    const SchemaJson short_one = {{keyword, WithPattern(10)}};
    EXPECT_LT(MergeSteps(copied_to, short_one), kMaxSchemaWork) << keyword;
  }
  // Tuples of one length get no copies.
  SchemaJson closed = tuple;
  closed["items"] = WithPattern(300'000);
  EXPECT_LT(MergeSteps(tuple, closed), kMaxSchemaWork);
}

SchemaJson Merged(const char* a, const char* b) {
  const absl::StatusOr<SchemaJson> merged = MergeSchemas(SchemaJson::parse(a), SchemaJson::parse(b), "#");
  EXPECT_TRUE(merged.ok()) << merged.status();
  return merged.value_or(SchemaJson());
}

TEST(SchemaMergeTest, AnEmptyListOfPatternsMatchesNothing) {
  const char* listing = R"({"properties":{"a":{"type":"integer"}}})";
  const char* closed = R"({"properties":{"b":{}},"patternProperties":{},"additionalProperties":false})";
  for (const SchemaJson& merged : {Merged(listing, closed), Merged(closed, listing)}) {
    EXPECT_EQ(merged["properties"]["a"], SchemaJson::parse(R"({"allOf":[{"type":"integer"},false]})"));
    EXPECT_EQ(merged["additionalProperties"], false);
  }
  // Beside another empty list, too.
  EXPECT_EQ(Merged(R"({"properties":{"a":true},"patternProperties":{}})", closed)["properties"]["a"]["allOf"][1],
            false);
}

// A tuple of an old draft is written anew: not by looking at every keyword before each.
TEST(SchemaResolverTest, TuplesOfOldDraftsWithManyKeywords) {
  SchemaJson tuple = SchemaJson::object();
  auto& members = tuple.get_ref<SchemaJson::object_t&>();
  for (int i = 0; i < 60'000; ++i) members.emplace_back(absl::StrCat("x-", i), 0);
  for (int i = 0; i < 60'000; ++i) members.emplace_back(absl::StrCat("unknown-", i), 0);
  members.emplace_back("items", SchemaJson::array({true}));
  members.emplace_back("additionalItems", false);
  SchemaBudget budget;
  SchemaResolver resolver(&tuple, &budget);
  const Stopwatch time;
  const absl::StatusOr<const SchemaJson*> resolved = resolver.Resolve(tuple, "#");
  EXPECT_LT(time.Seconds(), kRefusalSeconds);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ((*resolved)->size(), 60'002);
  EXPECT_EQ((**resolved)["prefixItems"], tuple["items"]);
  EXPECT_EQ((**resolved)["items"], false);
}

}  // namespace
}  // namespace cadre
