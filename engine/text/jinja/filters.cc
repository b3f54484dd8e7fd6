#include "engine/text/jinja/filters.h"

#include "absl/container/flat_hash_map.h"

namespace cadre::jinja {
namespace {

using FilterTable = absl::flat_hash_map<std::string_view, Filter>;

const FilterTable& Table() {
  static const FilterTable* const kTable = [] {
    auto* const table = new FilterTable();
    for (const auto filters : {TextFilters(), NumberFilters(), SequenceFilters(), SelectionFilters()}) {
      for (const NamedFilter& entry : filters) table->emplace(entry.name, entry.filter);
    }
    return table;
  }();
  return *kTable;
}

}  // namespace

Filter FindFilter(std::string_view name) {
  const auto found = Table().find(name);
  return found == Table().end() ? nullptr : found->second;
}

}  // namespace cadre::jinja
