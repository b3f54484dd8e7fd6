#ifndef CADRE_ENGINE_TEXT_STOP_MATCHER_H_
#define CADRE_ENGINE_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/byte_trie.h"

namespace cadre {

// Watches the text of one sequence for stop strings and decides what of it may be sent.
//
// The match that ends first wins; among those that end there, the longest. The text is cut where the match begins, or
// behind it with `include_stop_string`. What wins does not depend on how the text is cut into pieces. One Aho-Corasick
// automaton (Aho and Corasick 1975) serves all stop strings: the cost per byte does not grow with their number.
//
// Text that could be the beginning of a stop string is held back: at most the longest stop string less one byte, and
// the bytes of a character that is not complete. Movable; not thread-safe.
class StopMatcher {
 public:
  // REQUIRES: the stop strings are valid UTF-8. Empty ones are ignored.
  explicit StopMatcher(std::vector<std::string> stop_strings, bool include_stop_string = false);

  struct Result {
    std::string text;                    // may be sent: whole characters, if the text came as valid UTF-8
    std::optional<std::string> matched;  // the stop string, in the call that completes it
  };

  // Takes the next piece of text. After a match every further call returns nothing.
  Result Append(std::string_view text);

  // What is held back, at the end of a sequence without a match; nothing after one.
  std::string Flush();

 private:
  int Next(int state, char byte) const;

  std::vector<std::string> stop_strings_;
  bool include_stop_string_;
  ByteTrie trie_;           // the states: prefixes of stop strings
  std::vector<int> fail_;   // of each state: the longest proper suffix that is a state
  std::vector<int> match_;  // of each state: index of the longest stop string that it ends in, or ByteTrie::kNone
  int state_ = ByteTrie::kRoot;
  std::string held_;  // text that was not yet sent
  bool is_stopped_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_STOP_MATCHER_H_
