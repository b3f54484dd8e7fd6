#include "engine/structured/schema_values.h"

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

using testing::ElementsAre;
using testing::IsEmpty;

// Of the enum of a schema.
std::vector<SchemaJson> Kept(const SchemaJson& schema) {
  const absl::StatusOr<std::vector<SchemaJson>> kept =
      KeepConforming({&schema, "#"}, std::vector<SchemaJson>(schema["enum"].begin(), schema["enum"].end()));
  EXPECT_TRUE(kept.ok()) << kept.status();
  return kept.value_or(std::vector<SchemaJson>());
}

std::vector<SchemaJson> Kept(const char* schema) { return Kept(SchemaJson::parse(schema)); }

// Beyond 2^53 doubles are no longer whole numbers, and beyond 2^63 there are only unsigned ones.
TEST(SchemaValuesTest, BoundsAreExact) {
  EXPECT_THAT(Kept(R"({"enum":[-1],"minimum":9223372036854775808})"), IsEmpty());
  EXPECT_THAT(Kept(R"({"enum":[9223372036854775808],"minimum":-1})"), ElementsAre(9223372036854775808U));
  EXPECT_THAT(Kept(R"({"enum":[9007199254740992,9007199254740993],"exclusiveMinimum":9007199254740992.0})"),
              ElementsAre(9007199254740993));
  EXPECT_THAT(Kept(R"({"enum":[9007199254740993,9007199254740991],"maximum":9007199254740992.0})"),
              ElementsAre(9007199254740991));
  EXPECT_THAT(Kept(R"({"enum":[-9007199254740993,-9007199254740991],"exclusiveMinimum":-9007199254740992.0})"),
              ElementsAre(-9007199254740991));
  EXPECT_THAT(Kept(R"({"enum":[-0.0,0,1e-300,-1e-300,0.25,0.5,10],"minimum":0,"exclusiveMaximum":0.5})"),
              ElementsAre(-0.0, 0, 1e-300, 0.25));
  // Of two bounds, the one that leaves less.
  EXPECT_THAT(Kept(R"({"enum":[5],"minimum":9223372036854775808,"exclusiveMinimum":-1})"), IsEmpty());
}

TEST(SchemaValuesTest, MergedBoundsAreExact) {
  for (const char* schema : {R"({"allOf":[{"enum":[5]},{"minimum":9223372036854775808},{"minimum":-1}]})",
                             R"({"allOf":[{"enum":[5]},{"minimum":-1},{"minimum":9223372036854775808}]})",
                             R"({"allOf":[{"enum":[5]},{"maximum":-1},{"maximum":9223372036854775808}]})",
                             R"({"allOf":[{"enum":[5]},{"maximum":9223372036854775808},{"maximum":-1}]})"}) {
    EXPECT_EQ(ConstrainToJsonSchema(schema, ByteVocabulary()).status().code(), absl::StatusCode::kInvalidArgument)
        << schema;
  }
}

// What is generated has at most kMaxSchemaCount characters; what is given may have more.
TEST(SchemaValuesTest, GivenValuesMayBeLongerThanGeneratedOnes) {
  SchemaJson schema = {{"enum", {std::string(20'000, 'a'), std::string(29'999, 'a'), std::string(30'001, 'a')}},
                       {"minLength", 20'001},
                       {"maxLength", 30'000}};
  EXPECT_THAT(Kept(schema), ElementsAre(std::string(29'999, 'a')));
  const SchemaJson one = {{"const", std::string(20'000, 'a')}, {"maxLength", 30'000}};
  const CompiledConstraint constraint = ConstrainToJsonSchema(one.dump(), ByteVocabulary());
  EXPECT_TRUE(constraint.ok()) << constraint.status();
}

// Keywords are read once, and not for each of as many values.
TEST(SchemaValuesTest, ManyKeywordsBesideManyValues) {
  constexpr int kMany = 30'000;
  for (const bool has_const : {false, true}) {
    SchemaJson schema = SchemaJson::object();
    auto& members = schema.get_ref<SchemaJson::object_t&>();
    for (int i = 0; i < kMany; ++i) members.emplace_back(absl::StrCat("x-", i), 0);
    if (has_const) members.emplace_back("const", 5);
    SchemaJson values = SchemaJson::array();
    for (int i = 0; i < kMany; ++i) values.push_back(i);
    members.emplace_back("enum", values);
    members.emplace_back("minimum", 3);
    const Stopwatch time;
    const auto listed = ValuesOf({&schema, "#"});
    ASSERT_TRUE(listed.ok() && listed->has_value());
    const auto kept = KeepConforming({&schema, "#"}, **listed);
    EXPECT_LT(time.Seconds(), kRefusalSeconds) << has_const;
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(kept->size(), has_const ? 1 : kMany - 3);
  }
}

}  // namespace
}  // namespace cadre
