// Capacity policies between the wire and the engine.
#ifndef CADRE_SERVER_TRANSLATE_CAPACITY_H_
#define CADRE_SERVER_TRANSLATE_CAPACITY_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "cadre/v1/capacity.pb.h"
#include "engine/request/capacity_policy.h"

namespace cadre {

// The policy that `wire`, the field called `field`, asks for. What it does not say is as in `own`, the server's; where
// `own` is off, as in CapacityPolicy. INVALID_ARGUMENT names the field, the value and the limit; so are fields that
// mean nothing for the scope.
absl::StatusOr<CapacityPolicy> TranslateCapacity(const v1::CapacityPolicy& wire, const CapacityPolicy& own,
                                                 std::string_view field);

void FillCapacity(const CapacityPolicy& policy, v1::CapacityPolicy* wire);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_CAPACITY_H_
