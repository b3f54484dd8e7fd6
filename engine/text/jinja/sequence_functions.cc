#include "engine/text/jinja/sequence_functions.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/string_functions.h"

namespace cadre::jinja {

absl::StatusOr<Value> JoinTexts(Runtime& runtime, const std::vector<Value>& items, const Text& separator) {
  Text joined;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) joined.Append(separator);
    AppendString(items[i], &joined);
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(joined.size()));
  }
  return runtime.NewString(std::move(joined));
}

absl::StatusOr<std::vector<Value>> SortByKey(Runtime& runtime, std::vector<KeyedItem> items, bool is_reversed) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(items.size() * static_cast<std::size_t>(std::bit_width(items.size()))));
  absl::Status status;
  std::stable_sort(items.begin(), items.end(), [&](const KeyedItem& a, const KeyedItem& b) {
    const absl::StatusOr<bool> is_less = is_reversed ? Less(b.first, a.first) : Less(a.first, b.first);
    if (!is_less.ok()) status = is_less.status();
    return is_less.ok() && *is_less;
  });
  CADRE_RETURN_IF_ERROR(status);
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (KeyedItem& item : items) sorted.push_back(std::move(item.second));
  return sorted;
}

Value IgnoreCase(const Value& value) { return value.is_string() ? Value::String(Lower(value.text())) : value; }

}  // namespace cadre::jinja
