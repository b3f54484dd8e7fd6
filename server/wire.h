// Messages to and from bytes. The services read their requests themselves: the library answers a message that does
// not parse, which includes text that is not UTF-8, with UNIMPLEMENTED and no word about why.
#ifndef CADRE_SERVER_WIRE_H_
#define CADRE_SERVER_WIRE_H_

#include "absl/status/status.h"

namespace google::protobuf {
class Message;
}
namespace grpc {
class ByteBuffer;
}

namespace cadre {

// INVALID_ARGUMENT names the string field that is not valid UTF-8, or says that the bytes are no such message.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace cadre

#endif  // CADRE_SERVER_WIRE_H_
