// Filters on lists and dicts, and those that choose among values.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/attribute_path.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/sequence_functions.h"

namespace cadre::jinja {
namespace {

absl::StatusOr<Value> Default(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("default", arguments, {"default_value", "boolean"}));
  if (!input.is_undefined() && (!bound.Boolean(1, false) || input.IsTrue())) return input;
  return bound[0] == nullptr ? Value::String("") : *bound[0];
}

absl::StatusOr<Value> First(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("first", arguments, {}).status());
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  return items.empty() ? Value::Undefined("there is no first item: the sequence is empty") : items.front();
}

absl::StatusOr<Value> Last(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("last", arguments, {}).status());
  if (input.is_sequence() && !input.sequence().has_length()) {
    return Fail("last does not work on a generator: put | list before it");
  }
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  return items.empty() ? Value::Undefined("there is no last item: the sequence is empty") : items.back();
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("join", arguments, {"d", "attribute"}));
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime, input));
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, bound[1]));
  for (Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(item, path.Follow(runtime, item));
  }
  CADRE_ASSIGN_OR_RETURN(const Text separator, ToText(runtime, bound[0] == nullptr ? Value::String("") : *bound[0]));
  return JoinTexts(runtime, items, separator);
}

absl::StatusOr<Value> ListFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("list", arguments, {}).status());
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime, input));
  return Value::List(std::move(items));
}

absl::StatusOr<Value> Reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("reverse", arguments, {}).status());
  if (input.is_string()) {
    return GetSlice(runtime, input, {.start = Value::None(), .stop = Value::None(), .step = Value::Integer(-1)});
  }
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime, input));
  std::reverse(items.begin(), items.end());
  const bool was_generator = input.is_sequence() && !input.sequence().has_length();
  return was_generator ? Value::List(std::move(items)) : Value::Generator(std::move(items));
}

absl::StatusOr<Value> Items(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("items", arguments, {}).status());
  if (input.is_undefined()) return Value::Generator({});
  if (!input.is_dict()) return Fail(absl::StrCat("items takes a dict, not a ", input.TypeName()));
  CADRE_RETURN_IF_ERROR(runtime.Charge(input.dict().size()));
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().entries()) pairs.push_back(Value::Tuple({key, value}));
  return Value::Generator(std::move(pairs));
}

absl::StatusOr<Value> DictSort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}));
  CADRE_ASSIGN_OR_RETURN(const std::string by, bound.String(1, "key"));
  if (by != "key" && by != "value") return Fail("dictsort sorts by key or by value");
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.is_dict()) return Fail(absl::StrCat("dictsort takes a dict, not a ", input.TypeName()));
  std::vector<KeyedItem> items;
  for (const auto& [key, value] : input.dict().entries()) {
    Value order = by == "key" ? key : value;
    if (!bound.Boolean(0, false)) {
      CADRE_ASSIGN_OR_RETURN(order, IgnoreCase(runtime, order));
    }
    items.emplace_back(std::move(order), Value::Tuple({key, value}));
  }
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> sorted, SortByKey(runtime, std::move(items), bound.Boolean(2, false)));
  return Value::List(std::move(sorted));
}

// The keys by which items are compared: one attribute each, lower case unless case matters.
absl::StatusOr<std::vector<KeyedItem>> KeyItems(Runtime& runtime, const Value& input, const AttributePath& path,
                                                bool case_sensitive, const Value* fallback = nullptr) {
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<KeyedItem> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(Value key, path.Follow(runtime, item, fallback));
    if (!case_sensitive) {
      CADRE_ASSIGN_OR_RETURN(key, IgnoreCase(runtime, key));
    }
    keyed.emplace_back(std::move(key), item);
  }
  return keyed;
}

absl::StatusOr<Value> Sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  std::vector<AttributePath> paths;
  if (bound.IsGiven(2) && bound[2]->is_string()) {
    const std::string& names = bound[2]->bytes();
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(names.size()));
    CADRE_RETURN_IF_ERROR(runtime.Charge(static_cast<std::size_t>(std::count(names.begin(), names.end(), ','))));
    for (const std::string& part : std::vector<std::string>(absl::StrSplit(names, ','))) {
      const Value name = Value::String(part);
      CADRE_ASSIGN_OR_RETURN(AttributePath path, AttributePath::Parse(runtime, &name));
      paths.push_back(std::move(path));
    }
  } else {
    CADRE_ASSIGN_OR_RETURN(AttributePath path, AttributePath::Parse(runtime, bound[2]));
    paths.push_back(std::move(path));
  }
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<KeyedItem> keyed;
  for (const Value& item : items) {
    std::vector<Value> keys;
    for (const AttributePath& path : paths) {
      CADRE_ASSIGN_OR_RETURN(Value key, path.Follow(runtime, item));
      if (!bound.Boolean(1, false)) {
        CADRE_ASSIGN_OR_RETURN(key, IgnoreCase(runtime, key));
      }
      keys.push_back(std::move(key));
    }
    keyed.emplace_back(Value::List(std::move(keys)), item);
  }
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> sorted, SortByKey(runtime, std::move(keyed), bound.Boolean(0, false)));
  return Value::List(std::move(sorted));
}

absl::StatusOr<Value> Unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("unique", arguments, {"case_sensitive", "attribute"}));
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, bound[1]));
  CADRE_ASSIGN_OR_RETURN(const std::vector<KeyedItem> keyed, KeyItems(runtime, input, path, bound.Boolean(0, false)));
  Dict seen;
  std::vector<Value> items;
  for (const auto& [key, item] : keyed) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(key));
    CADRE_ASSIGN_OR_RETURN(const Value* found, seen.Find(key));
    if (found != nullptr) continue;
    CADRE_RETURN_IF_ERROR(seen.Set(key, Value::None()));
    items.push_back(item);
  }
  return Value::Generator(std::move(items));
}

template <bool kIsMax>
absl::StatusOr<Value> Extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("max", arguments, {"case_sensitive", "attribute"}));
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, bound[1]));
  CADRE_ASSIGN_OR_RETURN(const std::vector<KeyedItem> keyed, KeyItems(runtime, input, path, bound.Boolean(0, false)));
  const KeyedItem* best = nullptr;
  for (const KeyedItem& item : keyed) {
    bool is_better = best == nullptr;
    if (best != nullptr) {
      CADRE_ASSIGN_OR_RETURN(is_better,
                             kIsMax ? Less(runtime, best->first, item.first) : Less(runtime, item.first, best->first));
    }
    if (is_better) best = &item;
  }
  return best == nullptr ? Value::Undefined("there is no largest or smallest item: the sequence is empty")
                         : best->second;
}

absl::StatusOr<Value> Sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("sum", arguments, {"attribute", "start"}));
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, bound[0]));
  Value sum = bound[1] == nullptr ? Value::Integer(0) : *bound[1];
  if (sum.is_string()) return Fail("sum does not add strings");
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  for (const Value& item : items) {
    CADRE_ASSIGN_OR_RETURN(const Value value, path.Follow(runtime, item));
    CADRE_ASSIGN_OR_RETURN(sum, ApplyBinary(runtime, BinaryOperator::kAdd, sum, value));
  }
  return sum;
}

absl::StatusOr<Value> GroupBy(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1));
  CADRE_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, bound[0]));
  CADRE_ASSIGN_OR_RETURN(std::vector<KeyedItem> keyed,
                         KeyItems(runtime, input, path, bound.Boolean(2, false), bound[1]));
  for (KeyedItem& item : keyed) item.second = Value::Tuple({item.first, item.second});
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> sorted, SortByKey(runtime, std::move(keyed), false));
  std::vector<Value> groups;
  for (std::size_t begin = 0; begin < sorted.size();) {
    std::vector<Value> members;
    const Value& key = sorted[begin].sequence().items()[0];
    const Value& first = sorted[begin].sequence().items()[1];
    for (; begin < sorted.size() && Equal(sorted[begin].sequence().items()[0], key); ++begin) {
      CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(sorted[begin].sequence().items()[0], key));
      members.push_back(sorted[begin].sequence().items()[1]);
    }
    CADRE_ASSIGN_OR_RETURN(Value name, path.Follow(runtime, first, bound[1]));
    groups.push_back(Value::Tuple({std::move(name), Value::List(std::move(members))}));
  }
  return Value::List(std::move(groups));
}

absl::StatusOr<Value> Batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("batch", arguments, {"linecount", "fill_with"}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t size, bound.Integer(0, 1));
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : items) {
    if (std::ssize(batch) == size) batches.push_back(Value::List(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (bound.IsGiven(1) && size > std::ssize(batch)) {
      CADRE_RETURN_IF_ERROR(runtime.Charge(static_cast<std::size_t>(size)));
      batch.resize(static_cast<std::size_t>(size), *bound[1]);
    }
    batches.push_back(Value::List(std::move(batch)));
  }
  return Value::Generator(std::move(batches));
}

absl::StatusOr<Value> SliceFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("slice", arguments, {"slices", "fill_with"}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t num_slices, bound.Integer(0, 1));
  if (num_slices < 1) return Fail("slice needs at least one slice");
  CADRE_RETURN_IF_ERROR(runtime.Charge(static_cast<std::size_t>(num_slices)));
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  const std::int64_t size = std::ssize(items) / num_slices;
  const std::int64_t num_longer = std::ssize(items) % num_slices;
  std::vector<Value> slices;
  auto begin = items.begin();
  for (std::int64_t i = 0; i < num_slices; ++i) {
    const auto end = begin + size + (i < num_longer ? 1 : 0);
    std::vector<Value> slice(begin, end);
    if (bound.IsGiven(1) && i >= num_longer) slice.push_back(*bound[1]);
    slices.push_back(Value::List(std::move(slice)));
    begin = end;
  }
  return Value::Generator(std::move(slices));
}

absl::StatusOr<Value> Attr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("attr", arguments, {"name"}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string name, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(name.size()));
  // Unlike a dot, this looks for attributes only, not for items.
  if (input.is_dict()) return Value::Undefined(absl::StrCat("a dict has no attribute of the name ", Quoted(name)));
  return GetAttribute(runtime, input, name);
}

constexpr NamedFilter kFilters[] = {
    {"attr", Attr},       {"batch", Batch},       {"d", Default},          {"default", Default}, {"dictsort", DictSort},
    {"first", First},     {"groupby", GroupBy},   {"items", Items},        {"join", Join},       {"last", Last},
    {"list", ListFilter}, {"max", Extreme<true>}, {"min", Extreme<false>}, {"reverse", Reverse}, {"slice", SliceFilter},
    {"sort", Sort},       {"sum", Sum},           {"unique", Unique},
};

}  // namespace

std::span<const NamedFilter> SequenceFilters() { return kFilters; }

}  // namespace cadre::jinja
