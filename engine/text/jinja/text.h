#ifndef CADRE_ENGINE_TEXT_JINJA_TEXT_H_
#define CADRE_ENGINE_TEXT_JINJA_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/text_span.h"

namespace cadre::jinja {

// A string that remembers which of its bytes came from a client and which from the template. Every operation of the
// interpreter keeps the marks of the bytes it moves; a byte made from a client's byte (upper case, a JSON escape) is a
// client's. Valid UTF-8, and positions are boundaries between characters.
class Text {
 public:
  Text() = default;
  static Text FromTemplate(std::string bytes) { return Text(std::move(bytes), {}); }
  static Text FromClient(std::string bytes);

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // Rising, none empty, none touching the next.
  const std::vector<TextSpan>& client_spans() const { return client_spans_; }
  // Whether the byte at `position` came from a client.
  bool IsClient(std::size_t position) const;

  // The template's own bytes.
  void Append(std::string_view bytes) { bytes_ += bytes; }
  void Append(const Text& other) { AppendSlice(other, 0, other.size()); }
  void AppendSlice(const Text& other, std::size_t begin, std::size_t end);
  // Bytes that were made from the byte of `other` at `position`.
  void AppendDerived(std::string_view bytes, const Text& other, std::size_t position);

  Text Slice(std::size_t begin, std::size_t end) const;

  // Who wrote it does not matter.
  friend bool operator==(const Text& a, const Text& b) { return a.bytes_ == b.bytes_; }

 private:
  Text(std::string bytes, std::vector<TextSpan> client_spans)
      : bytes_(std::move(bytes)), client_spans_(std::move(client_spans)) {}

  void AddClientSpan(TextSpan span);

  std::string bytes_;
  std::vector<TextSpan> client_spans_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_TEXT_H_
