#include "server/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/utf8.h"
#include "server/errors.h"

namespace cadre {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 16;

// The path of the first string field of `fields`, read as a `type`, that is not UTF-8.
std::optional<std::string> FindInvalidString(const UnknownFieldSet& fields, const Descriptor& type, int depth) {
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* known = type.FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    if (known->type() == FieldDescriptor::TYPE_STRING && !IsValidUtf8(field.length_delimited())) return known->name();
    if (known->type() != FieldDescriptor::TYPE_MESSAGE || depth == 0) continue;
    UnknownFieldSet children;
    if (!children.ParseFromString(field.length_delimited())) continue;
    if (auto path = FindInvalidString(children, *known->message_type(), depth - 1)) {
      return absl::StrCat(known->name(), ".", *path);
    }
  }
  return std::nullopt;
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  {
    grpc::ByteBuffer copy = bytes;  // shares the slices; reading consumes a buffer
    grpc::ProtoBufferReader reader(&copy);
    if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  }
  grpc::ByteBuffer copy = bytes;
  grpc::ProtoBufferReader reader(&copy);
  UnknownFieldSet fields;
  if (reader.status().ok() && fields.ParseFromZeroCopyStream(&reader)) {
    if (auto path = FindInvalidString(fields, *message->GetDescriptor(), kMaxDepth)) {
      return InvalidField(*path, "is not valid UTF-8");
    }
  }
  return MakeError({.code = absl::StatusCode::kInvalidArgument,
                    .reason = reason::kMalformedRequest,
                    .message = absl::StrCat("the bytes received are not a ", message->GetDescriptor()->full_name())});
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace cadre
