#include "tests/support/message_mutator.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/text/utf8.h"

namespace cadre {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMaxElements = 64;
constexpr size_t kMaxTextBytes = 4096;

class Mutation {
 public:
  Mutation(const std::vector<std::string>& texts, std::mt19937* random) : texts_(texts), random_(*random) {}

  // One change in a field of `message` or below it.
  void Mutate(Message* message) {
    for (;;) {
      const auto& descriptor = *message->GetDescriptor();
      if (descriptor.field_count() == 0) return;
      const FieldDescriptor& field = *descriptor.field(Below(descriptor.field_count()));
      Message* child = Child(message, field);
      if (child == nullptr || Below(8) == 0) {
        Change(message, field);
        return;
      }
      message = child;
    }
  }

 private:
  int Below(int limit) { return static_cast<int>(random_() % static_cast<unsigned>(limit)); }
  template <typename T, size_t N>
  T Pick(const std::array<T, N>& values) {
    return values[static_cast<size_t>(Below(N))];
  }

  // A message in `field` to go on with; null when there is none, or the field is no message.
  Message* Child(Message* message, const FieldDescriptor& field) {
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return nullptr;
    const auto& reflection = *message->GetReflection();
    if (!field.is_repeated()) return reflection.MutableMessage(message, &field);
    const int size = reflection.FieldSize(*message, &field);
    return size == 0 ? nullptr : reflection.MutableRepeatedMessage(message, &field, Below(size));
  }

  void Change(Message* message, const FieldDescriptor& field) {
    const auto& reflection = *message->GetReflection();
    if (Below(6) == 0) {
      reflection.ClearField(message, &field);
    } else if (field.is_repeated()) {
      ChangeElements(message, field);
    } else {
      Set(message, field);
    }
  }

  void ChangeElements(Message* message, const FieldDescriptor& field) {
    const auto& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, &field);
    const int choice = Below(4);
    if (choice == 0 && size > 0) {
      reflection.SwapElements(message, &field, Below(size), size - 1);
      reflection.RemoveLast(message, &field);
    } else if (choice == 1 && size > 1) {
      reflection.SwapElements(message, &field, Below(size), Below(size));
    } else {
      const int count = Below(8) == 0 ? Below(kMaxElements) : 1;
      for (int i = size; i < kMaxElements && i < size + count; ++i) Add(message, field);
    }
  }

  void Set(Message* message, const FieldDescriptor& field) {
    const auto& reflection = *message->GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.SetInt32(message, &field, Int32());
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.SetInt64(message, &field, Int64());
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection.SetUInt32(message, &field, static_cast<uint32_t>(Int64()));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.SetUInt64(message, &field, static_cast<uint64_t>(Int64()));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.SetFloat(message, &field, Float());
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.SetDouble(message, &field, static_cast<double>(Float()));
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection.SetBool(message, &field, Below(2) == 0);
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection.SetEnumValue(message, &field, Int32());
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.SetString(message, &field, Text(reflection.GetString(*message, &field)));
      case FieldDescriptor::CPPTYPE_MESSAGE:
        reflection.MutableMessage(message, &field);
        return;
    }
  }

  void Add(Message* message, const FieldDescriptor& field) {
    const auto& reflection = *message->GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.AddInt32(message, &field, Int32());
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.AddInt64(message, &field, Int64());
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection.AddUInt32(message, &field, static_cast<uint32_t>(Int64()));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.AddUInt64(message, &field, static_cast<uint64_t>(Int64()));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.AddFloat(message, &field, Float());
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.AddDouble(message, &field, static_cast<double>(Float()));
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection.AddBool(message, &field, Below(2) == 0);
      case FieldDescriptor::CPPTYPE_ENUM:
        return reflection.AddEnumValue(message, &field, Int32());
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.AddString(message, &field, Text(""));
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        Message* added = reflection.AddMessage(message, &field);
        for (int i = Below(4); i > 0; --i) Mutate(added);
        return;
      }
    }
  }

  int32_t Int32() {
    using Limits = std::numeric_limits<int32_t>;
    if (Below(2) == 0) return Below(32);
    return Pick(std::array{-1, -2, -100, -101, 100, 101, 127, 128, 129, 255, 256, 299, 300, 301, 1024, 1 << 20,
                           Limits::max(), Limits::min(), Below(512)});
  }
  int64_t Int64() {
    using Limits = std::numeric_limits<int64_t>;
    if (Below(2) == 0) return Int32();
    return Pick(std::array<int64_t, 6>{Limits::max(), Limits::min(), 999'999'999, 1'000'000'000, 315'576'000'000,
                                       315'576'000'001});
  }
  float Float() {
    using Limits = std::numeric_limits<float>;
    if (Below(3) == 0) return static_cast<float>(Below(401) - 200) / 20.0f;
    return Pick(std::array{0.0f,
                           -0.0f,
                           1.0f,
                           1.0001f,
                           0.5f,
                           1e-4f,
                           9.9e-5f,
                           2.0f,
                           2.0001f,
                           -2.0f,
                           10.0f,
                           10.0001f,
                           100.0f,
                           -100.0f,
                           100.001f,
                           -1e-30f,
                           1e-45f,
                           1e38f,
                           1e-38f,
                           -1.0f,
                           Limits::max(),
                           Limits::lowest(),
                           Limits::infinity(),
                           -Limits::infinity(),
                           Limits::quiet_NaN()});
  }

  std::string Text(std::string text) {
    const int choice = Below(4);
    if (choice == 0 || text.empty()) {
      text = texts_[static_cast<size_t>(Below(static_cast<int>(texts_.size())))];
    } else if (choice == 1 && text.size() < kMaxTextBytes / 2) {
      text += text;
    } else if (choice == 2) {
      text.erase(static_cast<size_t>(Below(static_cast<int>(text.size()))), static_cast<size_t>(1 + Below(8)));
    } else if (text.size() < kMaxTextBytes) {
      const std::string& part = texts_[static_cast<size_t>(Below(static_cast<int>(texts_.size())))];
      text.insert(static_cast<size_t>(Below(static_cast<int>(text.size()) + 1)), part);
    }
    if (IsValidUtf8(text)) return text;
    // A character was cut.
    for (char& byte : text) byte = static_cast<char>(static_cast<unsigned char>(byte) & 0x7Fu);
    return text;
  }

  const std::vector<std::string>& texts_;
  std::mt19937& random_;
};

}  // namespace

void MutateMessage(Message* message, const std::vector<std::string>& texts, std::mt19937* random) {
  Mutation mutation(texts, random);
  for (unsigned i = (*random)() % 4 + 1; i > 0; --i) mutation.Mutate(message);
}

}  // namespace cadre
