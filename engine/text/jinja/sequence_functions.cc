#include "engine/text/jinja/sequence_functions.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/string_functions.h"

namespace cadre::jinja {

absl::StatusOr<Value> JoinTexts(Runtime& runtime, const std::vector<Value>& items, const Text& separator) {
  Text joined;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) {
      CADRE_RETURN_IF_ERROR(runtime.CheckSize(joined.size() + separator.size()));
      joined.Append(separator);
    }
    CADRE_RETURN_IF_ERROR(AppendString(runtime, items[i], &joined));
  }
  return runtime.NewString(std::move(joined));
}

absl::Status SortByKeyInPlace(Runtime& runtime, bool is_reversed, std::vector<KeyedItem>* items) {
  absl::Status status;
  std::stable_sort(items->begin(), items->end(), [&](const KeyedItem& a, const KeyedItem& b) {
    if (!status.ok()) return false;
    const absl::StatusOr<bool> is_less =
        is_reversed ? Less(runtime, b.first, a.first) : Less(runtime, a.first, b.first);
    if (!is_less.ok()) status = is_less.status();
    return is_less.ok() && *is_less;
  });
  return status;
}

absl::StatusOr<std::vector<Value>> SortByKey(Runtime& runtime, std::vector<KeyedItem> items, bool is_reversed) {
  CADRE_RETURN_IF_ERROR(SortByKeyInPlace(runtime, is_reversed, &items));
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (KeyedItem& item : items) sorted.push_back(std::move(item.second));
  return sorted;
}

absl::StatusOr<Value> IgnoreCase(Runtime& runtime, const Value& value) {
  if (!value.is_string()) return value;
  CADRE_RETURN_IF_ERROR(runtime.ChargeCharacters(value.text().size()));
  return runtime.NewString(Lower(value.text()));
}

}  // namespace cadre::jinja
