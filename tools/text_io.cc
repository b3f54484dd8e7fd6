#include "tools/text_io.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <iostream>
#include <iterator>

namespace cadre {

std::string ToJsonLine(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return "{\"error\": \"" + message.GetTypeName() + " cannot be written as JSON\"}\n";
  return json + "\n";
}

std::string ReadTextArgument(const std::string& argument) {
  if (argument != "-") return argument;
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string WithoutControlCharacters(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_c0 = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (is_c1) ++i;  // U+0080 to U+009F are two bytes in UTF-8
    if (is_c0 || is_c1) {
      safe += "\xef\xbf\xbd";
    } else {
      safe += text[i];
    }
  }
  return safe;
}

std::string ForStdout(std::string_view text) {
  return StdoutIsTerminal() ? WithoutControlCharacters(text) : std::string(text);
}

bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) != 0; }

int StdoutColumns() {
  constexpr int kDefaultColumns = 80;
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

}  // namespace cadre
