// Early returns for absl::Status and absl::StatusOr.
#ifndef CADRE_ENGINE_BASE_STATUS_MACROS_H_
#define CADRE_ENGINE_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define CADRE_MACRO_CONCAT_INNER_(a, b) a##b
#define CADRE_MACRO_CONCAT_(a, b) CADRE_MACRO_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define CADRE_RETURN_IF_ERROR(expr)                                 \
  do {                                                              \
    if (absl::Status cadre_status_ = (expr); !cadre_status_.ok()) { \
      return cadre_status_;                                         \
    }                                                               \
  } while (false)

// `lhs = value` of `expr` (an absl::StatusOr), or returns its status. `lhs` may declare a variable.
#define CADRE_ASSIGN_OR_RETURN(lhs, expr) \
  CADRE_ASSIGN_OR_RETURN_IMPL_(CADRE_MACRO_CONCAT_(cadre_status_or_, __LINE__), lhs, expr)

// NOLINTBEGIN(bugprone-macro-parentheses): `lhs` may be a declaration.
#define CADRE_ASSIGN_OR_RETURN_IMPL_(status_or, lhs, expr)   \
  auto status_or = (expr);                                   \
  if (!status_or.ok()) return std::move(status_or).status(); \
  lhs = *std::move(status_or)
// NOLINTEND(bugprone-macro-parentheses)

#endif  // CADRE_ENGINE_BASE_STATUS_MACROS_H_
