#include "engine/text/jinja/globals.h"

#include <algorithm>
#include <ctime>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/print.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

using Function = absl::StatusOr<Value> (*)(Runtime& runtime, const Arguments& arguments);

class FunctionObject final : public Object {
 public:
  explicit FunctionObject(Function function) : function_(function) {}
  std::string_view TypeName() const override { return "function"; }
  bool is_callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    return function_(runtime, arguments);
  }

 private:
  const Function function_;
};

// The members of dict(...) and namespace(...): those of a dict or list of pairs, then the named ones.
absl::StatusOr<Dict> ReadMembers(Runtime& runtime, std::string_view what, const Arguments& arguments) {
  Dict members;
  if (arguments.positional.size() > 1) return Fail(absl::StrCat(ToAbsl(what), " takes at most 1 argument"));
  if (!arguments.positional.empty() && arguments.positional[0].is_dict()) {
    const Dict& copied = arguments.positional[0].dict();
    for (const Dict::Entry& entry : copied.entries()) CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(entry.first));
    members = copied;
  } else if (!arguments.positional.empty()) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<Value> pairs, Iterate(runtime, arguments.positional[0]));
    for (const Value& pair : pairs) {
      CADRE_ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(runtime, pair));
      if (parts.size() != 2) return Fail(absl::StrCat(ToAbsl(what), " takes pairs of a key and a value"));
      CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(parts[0]));
      CADRE_RETURN_IF_ERROR(members.Set(parts[0], parts[1]));
    }
  }
  for (const auto& [name, value] : arguments.named) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(name.size()));
    CADRE_RETURN_IF_ERROR(members.Set(Value::String(name), value));
  }
  return members;
}

class Namespace final : public Object {
 public:
  explicit Namespace(Dict members) : members_(std::move(members)) {}
  std::string_view TypeName() const override { return "Namespace"; }
  std::optional<Value> Attribute(std::string_view name) override {
    const Value* const found = members_.Find(name);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  bool SetAttribute(std::string_view name, const Value& value) override {
    members_.Set(name, value);
    return true;
  }

 private:
  Dict members_;
};

class Cycler final : public Object {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  std::string_view TypeName() const override { return "Cycler"; }
  std::optional<Value> Attribute(std::string_view name) override {
    return name == "current" ? std::optional<Value>(items_[place_]) : std::nullopt;
  }
  absl::StatusOr<std::optional<Value>> CallMethod(Runtime& /*runtime*/, std::string_view name,
                                                  const Arguments& /*arguments*/) override {
    if (name == "next") {
      const Value current = items_[place_];
      place_ = (place_ + 1) % items_.size();
      return current;
    }
    if (name != "reset") return std::nullopt;
    place_ = 0;
    return Value::None();
  }

 private:
  const std::vector<Value> items_;
  std::size_t place_ = 0;
};

class Joiner final : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view TypeName() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& /*runtime*/, const Arguments& /*arguments*/) override {
    return std::exchange(is_used_, true) ? separator_ : Value::String("");
  }

 private:
  const Value separator_;
  bool is_used_ = false;
};

absl::StatusOr<Value> Range(Runtime& runtime, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("range", arguments, {"", "", ""}, 1));
  CADRE_ASSIGN_OR_RETURN(std::int64_t stop, bound.Integer(0, 0));
  std::int64_t start = 0;
  if (bound[1] != nullptr) {
    start = stop;
    CADRE_ASSIGN_OR_RETURN(stop, bound.Integer(1, 0));
  }
  CADRE_ASSIGN_OR_RETURN(const std::int64_t step, bound.Integer(2, 1));
  if (step == 0) return Fail("range: the step is 0");
  const bool is_empty = step > 0 ? start >= stop : start <= stop;
  // In unsigned numbers, where the distance of any two fits.
  const auto distance = step > 0 ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                 : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
  const auto stride = step > 0 ? static_cast<std::uint64_t>(step) : ~static_cast<std::uint64_t>(step) + 1;
  const std::uint64_t size = is_empty ? 0 : (distance - 1) / stride + 1;
  if (size > static_cast<std::uint64_t>(runtime.limits().range_size)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a range of ", size, " numbers, the limit is ", runtime.limits().range_size));
  }
  CADRE_RETURN_IF_ERROR(runtime.Charge(size));
  std::vector<Value> numbers;
  numbers.reserve(size);
  for (std::uint64_t i = 0; i < size; ++i) {
    const std::uint64_t number = static_cast<std::uint64_t>(start) + i * static_cast<std::uint64_t>(step);
    numbers.push_back(Value::Integer(static_cast<std::int64_t>(number)));
  }
  return Value::List(std::move(numbers));
}

absl::StatusOr<Value> MakeDict(Runtime& runtime, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(Dict members, ReadMembers(runtime, "dict", arguments));
  return Value::Mapping(std::move(members));
}

absl::StatusOr<Value> MakeNamespace(Runtime& runtime, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(Dict members, ReadMembers(runtime, "namespace", arguments));
  return Value::Of(runtime.New<Namespace>(std::move(members)));
}

absl::StatusOr<Value> MakeCycler(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) return Fail("cycler takes at least one item");
  CADRE_RETURN_IF_ERROR(runtime.Charge(arguments.positional.size()));
  return Value::Of(runtime.New<Cycler>(arguments.positional));
}

absl::StatusOr<Value> MakeJoiner(Runtime& runtime, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("joiner", arguments, {"sep"}));
  return Value::Of(runtime.New<Joiner>(bound[0] == nullptr ? Value::String(", ") : *bound[0]));
}

// At most kMaxExceptionBytes of it, cut between characters.
std::string CutMessage(std::string message) {
  if (message.size() <= kMaxExceptionBytes) return message;
  std::size_t end = kMaxExceptionBytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  message.resize(end);
  return message + "...";
}

absl::StatusOr<Value> RaiseException(Runtime& runtime, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("raise_exception", arguments, {"message"}, 1));
  CADRE_ASSIGN_OR_RETURN(const Text message, ToText(runtime, *bound[0]));
  return absl::InvalidArgumentError(CutMessage(message.bytes()));
}

// The format with what C knows nothing of put in: microseconds, and no zone, as Python's naive times print.
std::string ResolveFormat(std::string_view format, absl::Duration subsecond) {
  std::string resolved;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      resolved += format[i];
      continue;
    }
    const char directive = format[++i];
    if (directive == 'f') {
      resolved += absl::StrFormat("%06d", absl::ToInt64Microseconds(subsecond));
    } else if (directive != 'z' && directive != 'Z') {
      resolved += '%';
      resolved += directive;
    }
  }
  return resolved;
}

absl::StatusOr<Value> StrftimeNow(Runtime& runtime, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("strftime_now", arguments, {"format"}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string format, bound.String(0, ""));
  constexpr std::size_t kMaxFormatBytes = 256;
  if (format.size() > kMaxFormatBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a time format of ", format.size(), " bytes, the limit is ", kMaxFormatBytes));
  }
  const absl::TimeZone::CivilInfo info = runtime.time_zone().At(runtime.now());
  const std::tm civil = absl::ToTM(runtime.now(), runtime.time_zone());
  const std::string resolved = ResolveFormat(format, info.subsecond);
  constexpr std::size_t kMaxTimeBytes = 8192;
  char buffer[kMaxTimeBytes];
  const std::size_t size = resolved.empty() ? 0 : std::strftime(buffer, kMaxTimeBytes, resolved.c_str(), &civil);
  if (size == 0 && !resolved.empty() && resolved != "%p") return Fail("strftime_now: the format gives no time");
  std::string printed;
  AppendValidUtf8(std::string_view(buffer, size), &printed);
  const bool is_client = bound[0]->is_string() && !bound[0]->text().client_spans().empty();
  return runtime.NewString(is_client ? Text::FromClient(std::move(printed)) : Text::FromTemplate(std::move(printed)));
}

struct NamedFunction {
  std::string_view name;
  Function function;
};

constexpr NamedFunction kFunctions[] = {
    {"cycler", MakeCycler},        {"dict", MakeDict}, {"joiner", MakeJoiner},
    {"namespace", MakeNamespace},  {"range", Range},   {"raise_exception", RaiseException},
    {"strftime_now", StrftimeNow},
};

}  // namespace

std::optional<Value> FindGlobal(Runtime& runtime, std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                         [name](const NamedFunction& entry) { return entry.name == name; });
  if (found == std::end(kFunctions)) return std::nullopt;
  return Value::Of(runtime.New<FunctionObject>(found->function));
}

}  // namespace cadre::jinja
