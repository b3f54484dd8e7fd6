#include "tools/generation_printer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

// Text in quotes, or bytes in hexadecimal where they are no text by themselves.
std::string ShownBytes(const std::string& bytes) {
  if (bytes.empty()) return "";
  if (!IsValidUtf8(bytes)) return absl::StrCat("0x", absl::BytesToHexString(bytes));
  return absl::StrCat("\"", absl::Utf8SafeCEscape(bytes), "\"");
}

}  // namespace

std::string FinishReasonText(const v1::FinishedEvent& finished) {
  switch (finished.reason()) {
    case v1::FINISH_REASON_END_OF_SEQUENCE:
      return "end of sequence";
    case v1::FINISH_REASON_STOP_TOKEN:
      return absl::StrFormat("stop token %d", finished.matched_token_id());
    case v1::FINISH_REASON_STOP_STRING:
      return "stop string";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_TIME_LIMIT:
      return "time limit";
    case v1::FINISH_REASON_CONSTRAINT_END:
      return "constraint end";
    default:
      return "unknown reason";
  }
}

std::string FormatTokenDetails(const google::protobuf::RepeatedPtrField<v1::TokenDetail>& details) {
  std::string text = "   token  probability  logprob   rank  bytes, alternatives\n";
  for (const v1::TokenDetail& detail : details) {
    if (detail.rank() == 0) {  // nothing is known of its probability
      absl::StrAppendFormat(&text, "%8d  %11s %8s %6s  %s", detail.token_id(), "-", "-", "-",
                            ShownBytes(detail.token_bytes()));
    } else {
      absl::StrAppendFormat(&text, "%8d  %10.4f%% %8.4f %6d  %s", detail.token_id(),
                            100.0 * std::exp(static_cast<double>(detail.logprob())), detail.logprob(), detail.rank(),
                            ShownBytes(detail.token_bytes()));
    }
    for (const v1::TokenAlternative& alternative : detail.alternatives()) {
      absl::StrAppendFormat(&text, "  %d%s %.2f%%", alternative.token_id(), ShownBytes(alternative.token_bytes()),
                            100.0 * std::exp(static_cast<double>(alternative.logprob())));
    }
    text += "\n";
  }
  return text;
}

GenerationPrinter::GenerationPrinter(const v1::GenerateRequest& request)
    : num_sequences_(std::max(1, request.sampling().n())),
      streams_(num_sequences_ == 1 && !request.output().logprobs()) {}

std::string GenerationPrinter::Print(const v1::GenerateResponse& event) {
  if (event.has_started()) {
    if (event.started().prompt_details().empty()) return "";
    return absl::StrCat("prompt\n", FormatTokenDetails(event.started().prompt_details()), "\n");
  }
  if (event.has_delta()) {
    if (streams_) return event.delta().text();
    Sequence& sequence = sequences_[event.delta().index()];
    sequence.text += event.delta().text();
    sequence.details.insert(sequence.details.end(), event.delta().details().begin(), event.delta().details().end());
    return "";
  }
  if (!event.has_finished()) return "";
  return streams_ ? event.finished().text() + "\n" : PrintFinished(event.finished());
}

std::string GenerationPrinter::PrintFinished(const v1::FinishedEvent& finished) {
  Sequence& sequence = sequences_[finished.index()];
  std::string text;
  if (num_sequences_ > 1) {
    text = absl::StrFormat("--- %d of %d: %d tokens, end: %s ---\n", finished.index() + 1, num_sequences_,
                           finished.usage().generated_tokens(), FinishReasonText(finished));
  }
  absl::StrAppend(&text, sequence.text, finished.text(), "\n");
  if (!sequence.details.empty()) {
    absl::StrAppend(&text, FormatTokenDetails({sequence.details.begin(), sequence.details.end()}));
  }
  sequences_.erase(finished.index());
  return text;
}

}  // namespace cadre
