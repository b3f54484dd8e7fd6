// What the calls of the expert service have in common.
#ifndef CADRE_SERVER_STATS_REQUEST_H_
#define CADRE_SERVER_STATS_REQUEST_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/base/status_macros.h"
#include "server/field_support.h"
#include "server/model_host.h"
#include "server/translate_stats.h"

namespace cadre {

// Checks a request that names a model; the model.
template <typename Request>
absl::StatusOr<std::shared_ptr<const ServedText>> CheckModelRequest(const ModelHost& host, const Request& request) {
  CADRE_ASSIGN_OR_RETURN(std::shared_ptr<const ServedText> model, host.Text());
  CADRE_RETURN_IF_ERROR(host.CheckName(request.model()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
  return model;
}

// What a request selects of the statistics.
template <typename Request>
absl::StatusOr<StatsSelection> SelectionOf(const Request& request, const ModelCard& card) {
  const bool experts = request.has_include_experts() ? request.include_experts() : true;
  CADRE_ASSIGN_OR_RETURN(StatsSelection selection, SelectStats(request.scope(), request.layers(), experts, card));
  selection.as_matrix = request.as_matrix();
  return selection;
}

}  // namespace cadre

#endif  // CADRE_SERVER_STATS_REQUEST_H_
