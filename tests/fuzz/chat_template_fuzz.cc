// Templates from anywhere, rendered with a conversation from anywhere: no crash, no leak, no text or mark beyond its
// limits. Input: the template, byte 1, then the variables as JSON.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/check.h"
#include "engine/text/jinja/json.h"
#include "engine/text/jinja/template.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

constexpr std::string_view kDefaultVariables =
    R"({"messages": [{"role": "user", "content": "a <b> é"}, {"role": "tool", "content": null, "n": [1, 2.5, true]}],
        "tools": null, "add_generation_prompt": true, "bos_token": "<s>"})";

void CheckText(const Text& text, const RenderLimits& limits) {
  CADRE_CHECK(text.size() <= limits.output_bytes);
  CADRE_CHECK(IsValidUtf8(text.bytes()));
  std::size_t end = 0;
  for (const TextSpan& span : text.client_spans()) {
    CADRE_CHECK(span.begin < span.end && span.end <= text.size());
    CADRE_CHECK(end == 0 || span.begin > end);
    end = span.end;
  }
}

void Run(std::string_view input) {
  const std::size_t separator = input.find('\x01');
  const absl::StatusOr<Template> parsed = Template::Parse(input.substr(0, separator));
  if (!parsed.ok()) return;
  absl::StatusOr<Value> variables =
      ReadJson(separator == std::string_view::npos ? kDefaultVariables : input.substr(separator + 1));
  if (!variables.ok() || !variables->is_dict()) variables = ReadJson(kDefaultVariables);
  RenderOptions options;
  options.limits.steps = 20'000;
  options.limits.output_bytes = 1 << 16;
  options.now = absl::UnixEpoch();
  options.time_zone = absl::UTCTimeZone();
  const absl::StatusOr<Text> text = parsed->Render(variables->dict(), options);
  if (text.ok()) CheckText(*text, options.limits);
}

}  // namespace
}  // namespace cadre::jinja

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cadre::jinja::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
