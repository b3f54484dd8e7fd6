#include "engine/text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/object.h"

namespace cadre::jinja {
namespace {

constexpr std::uint64_t kMaxExtent = std::uint64_t{1} << 62;

bool EqualNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  return a.number() == b.number();
}

bool EqualItems(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), Equal);
}

bool EqualDicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&](const Dict::Entry& entry) {
    const absl::StatusOr<const Value*> other = b.Find(entry.first);
    return other.ok() && *other != nullptr && Equal(entry.second, **other);
  });
}

// Equal keys, and only they, have equal texts: True, 1 and 1.0 are one key.
absl::StatusOr<std::string> HashText(const Value& key) {
  switch (key.kind()) {
    case Value::Kind::kUndefined:
      return std::string("u");
    case Value::Kind::kNone:
      return std::string("0");
    case Value::Kind::kBoolean:
    case Value::Kind::kInteger:
      return absl::StrCat("i", key.integer());
    case Value::Kind::kFloat: {
      const double number = key.number();
      constexpr double kWhole = 9.2e18;
      if (std::floor(number) == number && std::abs(number) < kWhole) {
        return absl::StrCat("i", static_cast<std::int64_t>(number));
      }
      return absl::StrFormat("f%a", number);
    }
    case Value::Kind::kString:
      return absl::StrCat("s", key.bytes());
    case Value::Kind::kObject:
      return absl::StrFormat("o%p", &key.object());
    case Value::Kind::kSequence:
      if (key.sequence().type() == SequenceType::kTuple) {
        std::string hash = "t";
        for (const Value& item : key.sequence().items()) {
          CADRE_ASSIGN_OR_RETURN(const std::string part, HashText(item));
          absl::StrAppend(&hash, part.size(), ":", part);
        }
        return hash;
      }
      break;
    case Value::Kind::kDict:
      break;
  }
  return absl::FailedPreconditionError(absl::StrCat("a ", key.TypeName(), " cannot be the key of a dict"));
}

}  // namespace

void Extent::Add(const Extent& part) {
  values = std::min(values + part.values, kMaxExtent);
  bytes = std::min(bytes + part.bytes, kMaxExtent);
}

void Extent::Remove(const Extent& part) {
  if (values < kMaxExtent) values -= part.values;
  if (bytes < kMaxExtent) bytes -= part.bytes;
}

Value::Value(const Value& other) = default;
Value::Value(Value&& other) noexcept = default;
Value& Value::operator=(const Value& other) = default;
Value& Value::operator=(Value&& other) noexcept = default;
Value::~Value() = default;

Value Value::Undefined(std::string reason) {
  return Value(Variant(UndefinedData{std::make_shared<const std::string>(std::move(reason))}));
}

Value Value::String(Text text) { return Value(Variant(std::make_shared<const Text>(std::move(text)))); }

Value Value::Make(SequenceType type, std::vector<Value> items) {
  return Value(Variant(std::make_shared<const Sequence>(type, std::move(items))));
}

Value Value::List(std::vector<Value> items) { return Make(SequenceType::kList, std::move(items)); }
Value Value::Tuple(std::vector<Value> items) { return Make(SequenceType::kTuple, std::move(items)); }
Value Value::Generator(std::vector<Value> items) { return Make(SequenceType::kGenerator, std::move(items)); }
Value Value::View(std::vector<Value> items) { return Make(SequenceType::kView, std::move(items)); }

Value Value::Mapping(Dict dict) { return Value(Variant(std::make_shared<const Dict>(std::move(dict)))); }

const std::string& Value::undefined_reason() const {
  static const std::string* const kNoReason = new std::string("the value is undefined");
  const auto& reason = std::get<UndefinedData>(data_).reason;
  return reason == nullptr ? *kNoReason : *reason;
}

bool Value::IsTrue() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBoolean:
      return boolean();
    case Kind::kInteger:
      return integer() != 0;
    case Kind::kFloat:
      return number() != 0;
    case Kind::kString:
      return !text().empty();
    case Kind::kSequence:
      return !sequence().has_length() || !sequence().items().empty();
    case Kind::kDict:
      return dict().size() > 0;
    case Kind::kObject:
      return true;
  }
  return false;
}

std::string Value::TypeName() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBoolean:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kSequence:
      switch (sequence().type()) {
        case SequenceType::kList:
          return "list";
        case SequenceType::kTuple:
          return "tuple";
        case SequenceType::kGenerator:
          return "generator";
        case SequenceType::kView:
          return "dict view";
      }
      break;
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return std::string(object().TypeName());
  }
  return "";
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth();
  return is_dict() ? dict().depth() : 0;
}

Extent Value::extent() const {
  if (is_string()) return {.values = 1, .bytes = text().size()};
  if (is_sequence()) return sequence().extent();
  return is_dict() ? dict().extent() : Extent{};
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return EqualNumbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kString:
      return a.text() == b.text();
    case Value::Kind::kSequence:
      if (&a.sequence() == &b.sequence()) return true;
      return a.sequence().has_places() && a.sequence().type() == b.sequence().type() &&
             EqualItems(a.sequence().items(), b.sequence().items());
    case Value::Kind::kDict:
      return &a.dict() == &b.dict() || EqualDicts(a.dict(), b.dict());
    case Value::Kind::kObject:
      return &a.object() == &b.object();
    default:
      return true;  // undefined and None
  }
}

Sequence::Sequence(Type type, std::vector<Value> items) : type_(type), items_(std::move(items)) {
  for (const Value& item : items_) {
    depth_ = std::max(depth_, item.depth() + 1);
    extent_.Add(item.extent());
  }
}

std::vector<Value> Sequence::Walk() const {
  if (type_ != Type::kGenerator) return items_;
  if (is_spent_) return {};
  is_spent_ = true;
  return items_;
}

const Value* Dict::Find(std::string_view key) const {
  constexpr std::size_t kFew = 8;
  if (entries_.size() <= kFew) {
    for (const Entry& entry : entries_) {
      if (entry.first.is_string() && entry.first.bytes() == key) return &entry.second;
    }
    return nullptr;
  }
  const auto found = index_.find(absl::StrCat("s", ToAbsl(key)));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

absl::StatusOr<const Value*> Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(key.bytes());
  CADRE_ASSIGN_OR_RETURN(const std::string hash, HashText(key));
  const auto found = index_.find(hash);
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

absl::Status Dict::Set(Value key, Value value) {
  CADRE_ASSIGN_OR_RETURN(const std::string hash, HashText(key));
  SetHashed(hash, std::move(key), std::move(value));
  return absl::OkStatus();
}

void Dict::Set(std::string_view key, Value value) {
  SetHashed(absl::StrCat("s", ToAbsl(key)), Value::String(key), std::move(value));
}

void Dict::SetHashed(const std::string& hash, Value key, Value value) {
  depth_ = std::max({depth_, value.depth() + 1, key.depth() + 1});
  const auto [place, is_new] = index_.try_emplace(hash, entries_.size());
  if (is_new) {
    extent_.Add(key.extent());
    entries_.emplace_back(std::move(key), Value());
  } else {
    extent_.Remove(entries_[place->second].second.extent());
  }
  extent_.Add(value.extent());
  entries_[place->second].second = std::move(value);
}

}  // namespace cadre::jinja
