// What a request may ask for: every limit of the API in one table. GetModel tells them, errors name them.
#ifndef CADRE_SERVER_REQUEST_LIMITS_H_
#define CADRE_SERVER_REQUEST_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cadre {

// Bytes of one request message; gRPC refuses more with RESOURCE_EXHAUSTED. Room for a prompt at its own limits, as text
// (1 MiB) or as token ids (5 bytes each).
inline constexpr int kMaxRequestBytes = 16 << 20;

// Bytes of text that are tokenized for one request. Checked before tokenizing, which is the dearest thing that a
// refused request can make the server do.
inline constexpr size_t kMaxPromptBytes = 1 << 20;

// A conversation: messages, functions (and as many documents), calls of one message, members of `template_arguments`.
inline constexpr int kMaxChatMessages = 4096;
inline constexpr int kMaxChatTools = 128;
inline constexpr int kMaxToolCallsOfMessage = 128;
inline constexpr int kMaxTemplateArguments = 256;
// Bytes of one JSON text of a conversation, and of a role, a name or an id.
inline constexpr size_t kMaxChatJsonBytes = 256 << 10;
inline constexpr size_t kMaxChatNameBytes = 256;
// More messages than this are rendered on the work queue.
inline constexpr int kMaxInlineMessages = 64;

inline constexpr float kMaxTemperature = 10.0f;
// Below this, softmax(logits / temperature) is the arg max in float32 anyway, and the quotient may overflow.
inline constexpr float kMinTemperature = 1e-4f;

inline constexpr float kMaxPenalty = 2.0f;  // presence and frequency, and as much below zero
inline constexpr float kMaxRepetitionPenalty = 10.0f;
inline constexpr int kMaxLogitBiasEntries = 1024;
inline constexpr float kMaxLogitBias = 100.0f;  // and as much below zero
inline constexpr int kMaxAllowedTokenIds = 1 << 16;
inline constexpr int32_t kMaxSequences = 128;  // n
// Choices of the router in an answer (token x layer x expert): below the 4 MiB that gRPC's clients take in one message
// unless told otherwise. A choice takes 6 bytes, its weight included; where the number of experts varies, one that was
// not made takes 14, because a negative number takes 10.
inline constexpr int64_t kMaxRoutedChoices = int64_t{1} << 19;
inline constexpr int64_t kMaxVaryingRoutedChoices = int64_t{1} << 18;
inline constexpr int32_t kMaxTopLogprobs = 20;  // alternatives beside a token, of prompt or output
inline constexpr int32_t kMaxPriority = 100;    // and as much below zero
inline constexpr size_t kMaxLabelBytes = 128;   // tenant, cache salt

// What an answer may take, in the worst case, before its client has got anything of it: prompt details and repeated
// prompts, and everything of an answer in one message. Charged before a request is admitted, by the token, and as often
// as it is sent.
inline constexpr int64_t kMaxAnswerBytes = 64 << 20;
inline constexpr int64_t kAnswerBytesPerToken = 16;   // id and text
inline constexpr int64_t kAnswerBytesPerDetail = 32;  // a token's detail, and each alternative

inline constexpr int kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 1024;
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr size_t kMaxRequestIdBytes = 128;

// Detokenize: as many ids as the longest contexts have.
inline constexpr int kMaxDetokenizeIds = 1 << 20;

inline constexpr absl::Duration kMinWatchInterval = absl::Milliseconds(100);
inline constexpr absl::Duration kMaxWatchInterval = absl::Hours(1);
inline constexpr absl::Duration kDefaultWatchInterval = absl::Seconds(1);
// Calls of WatchExpertStats at a time: each copies all counters and holds a message.
inline constexpr int kMaxStatsWatchers = 64;

// Calls of ExportProfile and ImportProfile at a time: each takes up to a second of the thread that reads long prompts.
inline constexpr int kMaxProfileCalls = 1;

// Calls of VllmEngine's GetTokenizer at a time: together they hold one archive, of up to 200 MB.
inline constexpr int kMaxTokenizerCalls = 8;

// Calls of GetWhatIf at a time: each looks again and again, for up to 5 s, for a simulation that is the same for all.
inline constexpr int kMaxWhatIfCalls = 16;

// An Abort of VllmEngine: ids, and bytes of the message. One of up to kMaxUnchargedAbortBytes is read however little
// memory is left: requests that end give some back.
inline constexpr int kMaxAbortIds = 1024;
inline constexpr size_t kMaxAbortBytes = 64 << 10;
inline constexpr size_t kMaxUnchargedAbortBytes = 4 << 10;

// Pairs of experts of one layer that ExportProfile tells.
inline constexpr int32_t kMaxProfilePairs = 4096;
inline constexpr int32_t kDefaultProfilePairs = 256;

}  // namespace cadre

#endif  // CADRE_SERVER_REQUEST_LIMITS_H_
