#include "tools/chat/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cwchar>
#include <iostream>
#include <string>
#include <utility>

#ifdef CADRE_HAS_LIBEDIT
#include <histedit.h>
#endif

namespace cadre {
namespace {

// read(2) on stdin that ends with EINTR once `is_interrupted` is set. The flag is looked at again and again because a
// signal may come right before the call, or on another thread.
ssize_t ReadInput(const std::atomic<bool>& is_interrupted, char* buffer, size_t size) {
  constexpr int kLookMs = 50;
  while (!is_interrupted) {
    pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (poll(&input, 1, kLookMs) <= 0) continue;
    const ssize_t count = read(STDIN_FILENO, buffer, size);
    if (count >= 0 || errno != EINTR) return count;
  }
  errno = EINTR;
  return -1;
}

// Lines of files from Windows end with "\r\n".
std::string WithoutCarriageReturn(std::string line) {
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

class PlainReader final : public LineReader {
 public:
  PlainReader(bool is_interactive, const std::atomic<bool>* is_interrupted)
      : is_interactive_(is_interactive), is_interrupted_(is_interrupted) {}

  Result Read(const std::string& prompt, std::string* line) override {
    if (is_interactive_) std::cout << prompt << std::flush;
    while (true) {
      const size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        *line = WithoutCarriageReturn(buffer_.substr(0, end));
        buffer_.erase(0, end + 1);
        return Result::kLine;
      }
      char chunk[4096];
      const ssize_t count = ReadInput(*is_interrupted_, chunk, sizeof(chunk));
      if (count < 0 && errno == EINTR) {
        buffer_.clear();
        return Result::kInterrupted;
      }
      if (count <= 0) {
        if (buffer_.empty()) return Result::kEnd;
        *line = WithoutCarriageReturn(std::move(buffer_));
        buffer_.clear();
        return Result::kLine;
      }
      buffer_.append(chunk, static_cast<size_t>(count));
    }
  }

  bool is_interactive() const override { return is_interactive_; }

 private:
  const bool is_interactive_;
  const std::atomic<bool>* const is_interrupted_;
  std::string buffer_;
};

#ifdef CADRE_HAS_LIBEDIT

class EditingReader final : public LineReader {
 public:
  explicit EditingReader(const std::atomic<bool>* is_interrupted) : is_interrupted_(is_interrupted) {
    // The editor moves by characters, which are those of the locale.
    if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor_ = el_init("cadre", stdin, stdout, stderr);
    history_ = history_init();
    HistEvent event;
    constexpr int kHistoryLines = 1000;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(
        editor_, EL_PROMPT, +[](EditLine* editor) -> char* {
          EditingReader* self = nullptr;
          el_get(editor, EL_CLIENTDATA, &self);
          return self->prompt_.data();
        });
    el_set(editor_, EL_GETCFN, &ReadCharacter);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, history, history_);
    el_source(editor_, nullptr);
  }
  ~EditingReader() override {
    el_end(editor_);
    history_end(history_);
  }
  EditingReader(const EditingReader&) = delete;
  EditingReader& operator=(const EditingReader&) = delete;

  Result Read(const std::string& prompt, std::string* line) override {
    prompt_ = prompt;
    int count = 0;
    errno = 0;
    // The editor itself would prepare the terminal only behind the prompt: the terminal would read in its own way what
    // is typed in between, such as Ctrl-D.
    el_set(editor_, EL_PREP_TERM, 1);
    const char* const text = el_gets(editor_, &count);
    if (text == nullptr || count <= 0) {
      if (count < 0 && errno == EINTR) {
        el_reset(editor_);
        std::cout << std::endl;
        return Result::kInterrupted;
      }
      return Result::kEnd;
    }
    line->assign(text, static_cast<size_t>(count));
    if (line->ends_with('\n')) line->pop_back();
    HistEvent event;
    if (!line->empty()) history(history_, &event, H_ENTER, line->c_str());
    return Result::kLine;
  }

  bool is_interactive() const override { return true; }

 private:
  // Of libedit: 1 for a character, 0 for the end, -1 for an error.
  static int ReadCharacter(EditLine* editor, wchar_t* character) {
    EditingReader* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    std::mbstate_t state{};
    while (true) {
      char byte = 0;
      const ssize_t count = ReadInput(*self->is_interrupted_, &byte, 1);
      if (count <= 0) return static_cast<int>(count);
      const bool is_first = std::mbsinit(&state) != 0;
      size_t size = std::mbrtowc(character, &byte, 1, &state);
      if (size == static_cast<size_t>(-1)) {
        state = {};
        // What shows that a character was broken off may begin the next one.
        if (!is_first) size = std::mbrtowc(character, &byte, 1, &state);
      }
      switch (size) {
        case static_cast<size_t>(-1):  // no character of the locale: passed over
          state = {};
          break;
        case static_cast<size_t>(-2):  // more bytes to come
          break;
        default:
          return 1;
      }
    }
  }

  const std::atomic<bool>* const is_interrupted_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_;
};

#endif

}  // namespace

std::unique_ptr<LineReader> MakeLineReader(const std::atomic<bool>* is_interrupted) {
  const bool is_interactive = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
#ifdef CADRE_HAS_LIBEDIT
  if (is_interactive) return std::make_unique<EditingReader>(is_interrupted);
#endif
  return std::make_unique<PlainReader>(is_interactive, is_interrupted);
}

}  // namespace cadre
