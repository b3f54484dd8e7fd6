#include "engine/text/jinja/text.h"

#include <algorithm>

namespace cadre::jinja {

Text Text::FromClient(std::string bytes) {
  const std::size_t size = bytes.size();
  if (size == 0) return Text();
  return Text(std::move(bytes), {{0, size}});
}

bool Text::IsClient(std::size_t position) const {
  const auto after = std::upper_bound(client_spans_.begin(), client_spans_.end(), position,
                                      [](std::size_t p, const TextSpan& span) { return p < span.begin; });
  return after != client_spans_.begin() && position < std::prev(after)->end;
}

void Text::AddClientSpan(TextSpan span) {
  if (span.begin == span.end) return;
  if (!client_spans_.empty() && client_spans_.back().end == span.begin) {
    client_spans_.back().end = span.end;
  } else {
    client_spans_.push_back(span);
  }
}

void Text::AppendSlice(const Text& other, std::size_t begin, std::size_t end) {
  const std::size_t offset = bytes_.size();
  auto span = std::lower_bound(other.client_spans_.begin(), other.client_spans_.end(), begin,
                               [](const TextSpan& s, std::size_t p) { return s.end <= p; });
  for (; span != other.client_spans_.end() && span->begin < end; ++span) {
    AddClientSpan({offset + std::max(span->begin, begin) - begin, offset + std::min(span->end, end) - begin});
  }
  bytes_.append(other.bytes_, begin, end - begin);
}

void Text::AppendDerived(std::string_view bytes, const Text& other, std::size_t position) {
  if (other.IsClient(position)) AddClientSpan({bytes_.size(), bytes_.size() + bytes.size()});
  bytes_ += bytes;
}

Text Text::Slice(std::size_t begin, std::size_t end) const {
  Text slice;
  slice.AppendSlice(*this, begin, end);
  return slice;
}

}  // namespace cadre::jinja
