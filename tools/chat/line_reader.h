// Lines of input from a person or a program.
#ifndef CADRE_TOOLS_CHAT_LINE_READER_H_
#define CADRE_TOOLS_CHAT_LINE_READER_H_

#include <atomic>
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
  // Shows `prompt` where a person types. `*line` has no line break, neither "\n" nor "\r\n".
  virtual Result Read(const std::string& prompt, std::string* line) = 0;
  // Whether a person types.
  virtual bool is_interactive() const = 0;
};

// Editing and history on a terminal, where cadre was built with libedit; else, and from a pipe, plain lines.
// `is_interrupted` is set by the handler of SIGINT, whichever thread runs it and whenever it comes, and cleared by who
// hears of kInterrupted; it must outlive the reader.
std::unique_ptr<LineReader> MakeLineReader(const std::atomic<bool>* is_interrupted);

}  // namespace cadre

#endif  // CADRE_TOOLS_CHAT_LINE_READER_H_
