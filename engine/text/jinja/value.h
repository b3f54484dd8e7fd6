#ifndef CADRE_ENGINE_TEXT_JINJA_VALUE_H_
#define CADRE_ENGINE_TEXT_JINJA_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja/text.h"

namespace cadre::jinja {

class Dict;
class Object;
class Sequence;

enum class SequenceType { kList, kTuple, kGenerator, kView };

// How much is in a value: itself and everything inside it, as often as it is there, and the bytes of all strings among
// them. Counting stops at 2^62: a list that holds another one twice, which does so itself, soon has more.
struct Extent {
  std::uint64_t values = 1;
  std::uint64_t bytes = 0;

  void Add(const Extent& part);
  void Remove(const Extent& part);
};

// A value of the template language: Python's None, bool, int (64 bits), float, str, list, tuple, dict, what Jinja calls
// undefined, and objects of the interpreter (object.h). Immutable and cheap to copy. Valid as long as the rendering
// that made it; what ReadJson and the constructors here make is free of objects and lives as long as it is held.
class Value {
 public:
  enum class Kind { kUndefined, kNone, kBoolean, kInteger, kFloat, kString, kSequence, kDict, kObject };

  // Undefined, for no stated reason.
  Value() = default;
  // Not inline: a value is copied in very many places.
  Value(const Value& other);
  Value(Value&& other) noexcept;
  Value& operator=(const Value& other);
  Value& operator=(Value&& other) noexcept;
  ~Value();
  // `reason` is what an error says when the value is used: "'x' is undefined".
  static Value Undefined(std::string reason);
  static Value None() { return Value(Variant(std::in_place_index<1>)); }
  static Value Boolean(bool value) { return Value(Variant(value)); }
  static Value Integer(std::int64_t value) { return Value(Variant(value)); }
  static Value Float(double value) { return Value(Variant(value)); }
  static Value String(Text text);
  static Value String(std::string_view text) { return String(Text::FromTemplate(std::string(text))); }
  static Value List(std::vector<Value> items);
  static Value Tuple(std::vector<Value> items);
  // What map, select and their kin return: always true, without length or places, and empty once it was walked.
  static Value Generator(std::vector<Value> items);
  // What dict.keys(), .values() and .items() return: a length, but no places.
  static Value View(std::vector<Value> items);
  static Value Mapping(Dict dict);
  static Value Of(Object* object) { return Value(Variant(object)); }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_boolean() const { return kind() == Kind::kBoolean; }
  bool is_integer() const { return kind() == Kind::kInteger; }
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_sequence() const { return kind() == Kind::kSequence; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_object() const { return kind() == Kind::kObject; }
  // int, float or bool, which is a kind of int.
  bool is_number() const { return is_integer() || is_float() || is_boolean(); }
  // int or bool.
  bool is_integral() const { return is_integer() || is_boolean(); }

  // REQUIRES for each: the kind it names.
  const std::string& undefined_reason() const;
  bool boolean() const { return std::get<bool>(data_); }
  std::int64_t integer() const { return is_boolean() ? std::int64_t{boolean()} : std::get<std::int64_t>(data_); }
  // Of any number.
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }
  const Text& text() const { return *std::get<StringPointer>(data_); }
  const std::string& bytes() const { return text().bytes(); }
  const Sequence& sequence() const { return *std::get<SequencePointer>(data_); }
  const Dict& dict() const { return *std::get<DictPointer>(data_); }
  Object& object() const { return *std::get<Object*>(data_); }

  // Whether it counts as true.
  bool IsTrue() const;
  // What Python calls its type: "str", "NoneType", "Undefined".
  std::string TypeName() const;
  // How many lists, tuples and dicts are inside each other, itself included; 0 for everything else.
  int depth() const;
  Extent extent() const;

 private:
  struct UndefinedData {
    std::shared_ptr<const std::string> reason;
  };
  using StringPointer = std::shared_ptr<const Text>;
  using SequencePointer = std::shared_ptr<const Sequence>;
  using DictPointer = std::shared_ptr<const Dict>;
  // In the order of Kind.
  using Variant = std::variant<UndefinedData, std::monostate, bool, std::int64_t, double, StringPointer,
                               SequencePointer, DictPointer, Object*>;

  explicit Value(Variant data) : data_(std::move(data)) {}
  static Value Make(SequenceType type, std::vector<Value> items);

  Variant data_;
};

// Python's ==. Numbers of different kinds compare by value. Recursive: values are at most kMaxValueDepth deep.
bool Equal(const Value& a, const Value& b);

// A list, or what resembles one.
class Sequence {
 public:
  using Type = SequenceType;

  Sequence(Type type, std::vector<Value> items);

  Type type() const { return type_; }
  // Of a list, tuple or view.
  const std::vector<Value>& items() const { return items_; }
  bool has_places() const { return type_ == Type::kList || type_ == Type::kTuple; }
  bool has_length() const { return type_ != Type::kGenerator; }
  std::size_t size() const { return items_.size(); }
  // The items for a walk through them. A generator has them for the first walk only.
  std::vector<Value> Walk() const;
  int depth() const { return depth_; }
  const Extent& extent() const { return extent_; }

 private:
  const Type type_;
  const std::vector<Value> items_;
  int depth_ = 1;
  Extent extent_;
  mutable bool is_spent_ = false;
};

// A mapping in the order in which its keys were first set.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  const std::vector<Entry>& entries() const { return entries_; }
  std::size_t size() const { return entries_.size(); }
  // Null when there is none.
  const Value* Find(std::string_view key) const;
  // The same for any key; INVALID_ARGUMENT when a key of its type is not possible (a list, a dict).
  absl::StatusOr<const Value*> Find(const Value& key) const;
  // Replaces the value of a key that is there.
  absl::Status Set(Value key, Value value);
  void Set(std::string_view key, Value value);
  int depth() const { return depth_; }
  const Extent& extent() const { return extent_; }

 private:
  void SetHashed(const std::string& hash, Value key, Value value);

  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, std::size_t> index_;  // of every key's hash text
  int depth_ = 1;
  Extent extent_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_VALUE_H_
