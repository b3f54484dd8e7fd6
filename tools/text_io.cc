#include "tools/text_io.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
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
  if (text.ends_with('\n')) {
    text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
  }
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

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xc2 && lead <= 0xdf   ? 1
                     : lead >= 0xe0 && lead <= 0xef ? 2
                     : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                    : 0;
    if (more == 0 || text.size() - i < static_cast<size_t>(more)) return false;
    // The second byte excludes overlong forms, surrogates and what is above U+10FFFF.
    const auto second = static_cast<unsigned char>(text[i]);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
        (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    for (int k = 0; k < more; ++k) {
      if ((static_cast<unsigned char>(text[i++]) & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  if (!in) return absl::InvalidArgumentError(path + ": " + std::strerror(errno));
  std::string text;
  constexpr size_t kChunk = 1 << 16;
  while (in && text.size() <= max_bytes) {
    const size_t size = text.size();
    text.resize(size + kChunk);
    in.read(text.data() + size, kChunk);
    text.resize(size + static_cast<size_t>(in.gcount()));
  }
  if (in.bad() || (path != "-" && std::filesystem::is_directory(path))) {
    return absl::InvalidArgumentError(path + ": cannot be read");
  }
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(path + ": more than " + std::to_string(max_bytes) + " bytes, which is the limit");
  }
  return text;
}

namespace {

absl::Status AppendOrReplace(const std::string& path, std::string_view text, std::ios::openmode mode) {
  std::ofstream file(path, std::ios::binary | mode);
  file << text << std::flush;
  if (!file) return absl::InvalidArgumentError(path + ": cannot be written: " + std::strerror(errno));
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteFile(const std::string& path, std::string_view text) {
  return AppendOrReplace(path, text, std::ios::trunc);
}

absl::Status CheckWritable(const std::string& path) { return AppendOrReplace(path, "", std::ios::app); }

std::string ForStdout(std::string_view text) {
  return StdoutIsTerminal() ? WithoutControlCharacters(text) : std::string(text);
}

bool StderrIsTerminal() { return isatty(STDERR_FILENO) != 0; }

bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) != 0; }

int StdoutRows() {
  constexpr int kDefaultRows = 24;
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : kDefaultRows;
}

int StdoutColumns() {
  constexpr int kDefaultColumns = 80;
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

}  // namespace cadre
