// Structure-aware mutation of protobuf messages: every mutant is a message of the same type.
#ifndef CADRE_TESTS_SUPPORT_MESSAGE_MUTATOR_H_
#define CADRE_TESTS_SUPPORT_MESSAGE_MUTATOR_H_

#include <random>
#include <string>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace cadre {

// Changes one to four things of `message`, anywhere in it: sets a field to a value (often one at the edge of its type,
// or one of `texts`), clears it, or adds, removes or swaps elements. Strings stay valid UTF-8. Deterministic.
void MutateMessage(google::protobuf::Message* message, const std::vector<std::string>& texts, std::mt19937* random);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_MESSAGE_MUTATOR_H_
