#include "engine/request/refusal.h"

#include "absl/strings/cord.h"

namespace cadre {
namespace {

constexpr char kPayload[] = "cadre/refusal";
constexpr Refusal kRefusals[] = {Refusal::kQueueFull, Refusal::kTenantShare, Refusal::kDeadlineUnreachable,
                                 Refusal::kMemoryPressure, Refusal::kExpertUnavailable};

std::string Encode(Refusal refusal) { return std::to_string(static_cast<int>(refusal)); }

}  // namespace

absl::Status MakeRefusal(Refusal refusal, absl::StatusCode code, const std::string& message) {
  absl::Status status(code, message);
  status.SetPayload(kPayload, absl::Cord(Encode(refusal)));
  return status;
}

Refusal RefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload.has_value()) return Refusal::kNone;
  for (const Refusal refusal : kRefusals) {
    if (*payload == Encode(refusal)) return refusal;
  }
  return Refusal::kNone;
}

}  // namespace cadre
