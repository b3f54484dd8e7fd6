// Templates rendered as Jinja2 renders them, by data that tests/golden/make_chat_templates.py wrote.
#include <cstddef>
#include <string>

#include "absl/time/time.h"
#include "engine/base/file.h"
#include "engine/text/jinja/json.h"
#include "engine/text/jinja/template.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cadre::jinja {
namespace {

TEST(ChatTemplateGoldenTest, RendersAsJinja2) {
  const absl::StatusOr<std::string> file = ReadFileToString("tests/golden/chat_templates/golden.json", 1 << 20);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto golden = nlohmann::ordered_json::parse(*file);
  RenderOptions options;
  options.now = absl::FromUnixSeconds(golden["now"].get<std::int64_t>());
  options.time_zone = absl::UTCTimeZone();
  int num_rendered = 0;
  int num_refused = 0;
  for (const auto& entry : golden["templates"]) {
    const absl::StatusOr<Template> parsed = Template::Parse(entry["source"].get<std::string>());
    ASSERT_TRUE(parsed.ok()) << entry["name"] << ": " << parsed.status();
    for (std::size_t i = 0; i < golden["variables"].size(); ++i) {
      SCOPED_TRACE(entry["name"].get<std::string>() + " with variables " + std::to_string(i));
      const absl::StatusOr<Value> variables = ReadJson(golden["variables"][i].dump());
      ASSERT_TRUE(variables.ok()) << variables.status();
      const absl::StatusOr<Text> text = parsed->Render(variables->dict(), options);
      if (entry["texts"][i].is_null()) {
        ++num_refused;
        EXPECT_FALSE(text.ok()) << text->bytes();
      } else {
        ++num_rendered;
        ASSERT_TRUE(text.ok()) << text.status();
        EXPECT_EQ(text->bytes(), entry["texts"][i].get<std::string>());
      }
    }
  }
  EXPECT_GT(num_rendered, 100);
  EXPECT_GT(num_refused, 10);
}

}  // namespace
}  // namespace cadre::jinja
