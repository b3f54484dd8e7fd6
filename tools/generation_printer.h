// The events of an answer as text for people.
#ifndef CADRE_TOOLS_GENERATION_PRINTER_H_
#define CADRE_TOOLS_GENERATION_PRINTER_H_

#include <map>
#include <string>
#include <vector>

#include "cadre/v1/generation_service.pb.h"

namespace cadre {

// One sequence is printed as it comes. Several, or tokens with their probabilities, are printed sequence by sequence,
// each under a heading, when they are finished.
class GenerationPrinter {
 public:
  explicit GenerationPrinter(const v1::GenerateRequest& request);

  // What to print for the event; may be empty.
  std::string Print(const v1::GenerateResponse& event);

 private:
  struct Sequence {
    std::string text;
    std::vector<v1::TokenDetail> details;
  };

  std::string PrintFinished(const v1::FinishedEvent& finished);

  const int num_sequences_;
  const bool streams_;
  std::map<int32_t, Sequence> sequences_;
};

// "length", "stop token 17": why a sequence ended.
std::string FinishReasonText(const v1::FinishedEvent& finished);

// A line for each token: id, probability, logarithm, rank, bytes, alternatives. Bytes that are no printable text are
// escaped.
std::string FormatTokenDetails(const google::protobuf::RepeatedPtrField<v1::TokenDetail>& details);

}  // namespace cadre

#endif  // CADRE_TOOLS_GENERATION_PRINTER_H_
