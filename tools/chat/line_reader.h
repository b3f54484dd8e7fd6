// Lines of input from a person or a program.
#ifndef CADRE_TOOLS_CHAT_LINE_READER_H_
#define CADRE_TOOLS_CHAT_LINE_READER_H_

#include <memory>
#include <string>

namespace cadre {

class LineReader {
 public:
  enum class Result {
    kLine,
    kInterrupted,  // Ctrl-C: the line is dropped
    kEnd,          // Ctrl-D, or the end of the file
  };

  virtual ~LineReader() = default;
  // Shows `prompt` where a person types. `*line` has no line break. SIGINT must have a handler that does not restart
  // system calls.
  virtual Result Read(const std::string& prompt, std::string* line) = 0;
  // Whether a person types.
  virtual bool is_interactive() const = 0;
};

// Editing and history on a terminal, where cadre was built with libedit; else, and from a pipe, plain lines.
std::unique_ptr<LineReader> MakeLineReader();

}  // namespace cadre

#endif  // CADRE_TOOLS_CHAT_LINE_READER_H_
