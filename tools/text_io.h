// Text in and out of the client: arguments, terminals, JSON.
#ifndef CADRE_TOOLS_TEXT_IO_H_
#define CADRE_TOOLS_TEXT_IO_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace google::protobuf {
class Message;
}

namespace cadre {

// The text of a positional argument: "-" stands for all of stdin without one final line break, "\n" or
// "\r\n".
std::string ReadTextArgument(const std::string& argument);

// Control characters other than line breaks and tabs, which could move a terminal's cursor or change its state, become
// U+FFFD. `text` is valid UTF-8.
std::string WithoutControlCharacters(std::string_view text);

bool IsValidUtf8(std::string_view text);

// `text` as stdout should get it: unchanged in a file or pipe, without control characters on a terminal.
std::string ForStdout(std::string_view text);

// A whole file; "-" is stdin. INVALID_ARGUMENT says what is wrong, and names the limit when it is larger.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);
absl::Status WriteFile(const std::string& path, std::string_view text);
// Whether WriteFile can write there, asked before hours of work. A file that does not exist is made; one that does
// keeps what it has.
absl::Status CheckWritable(const std::string& path);

// Columns and rows of the terminal that stdout is; 80 and 24 when it is none.
int StdoutColumns();
int StdoutRows();
bool StdoutIsTerminal();
bool StderrIsTerminal();

// One line of JSON, as Protocol Buffers maps messages: names as in the .proto files, 64-bit integers as strings.
std::string ToJsonLine(const google::protobuf::Message& message);

}  // namespace cadre

#endif  // CADRE_TOOLS_TEXT_IO_H_
