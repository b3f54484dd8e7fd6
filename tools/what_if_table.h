// What other expert caches would have done, as text for a terminal.
#ifndef CADRE_TOOLS_WHAT_IF_TABLE_H_
#define CADRE_TOOLS_WHAT_IF_TABLE_H_

#include <string>

#include "cadre/v1/expert_service.pb.h"

namespace cadre {

// One line for each size, one column for each policy: the share of lookups that would have been hits. The cache that
// serves is marked.
std::string FormatWhatIf(const v1::GetWhatIfResponse& what_if);

}  // namespace cadre

#endif  // CADRE_TOOLS_WHAT_IF_TABLE_H_
